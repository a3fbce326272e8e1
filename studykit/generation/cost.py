"""The cost of training: counts of tokens by their use, and seconds.

    cost = Cost(teacher_tokens=0)
    cost.add(teacher_tokens=4096)
    cost.add_seconds("teacher_s")           # since the last call, or since the object was made

Each stage has one object, and the loop, the rollout and the teacher all add to it.
"""

import time
from typing import Any


class Cost(dict[str, float]):
    """Amounts by name; a name that ends in `_s` counts seconds, every other name tokens or positions.

    >>> cost = Cost(teacher_tokens=0)
    >>> cost.add(teacher_tokens=3, generated_tokens=2)
    >>> cost
    {'teacher_tokens': 3, 'generated_tokens': 2}
    """

    def __init__(self, **amounts: float):
        super().__init__(amounts)
        self._counted_until = time.monotonic()

    def add(self, **amounts: float) -> None:
        """Add to the amounts of these names."""
        for name, amount in amounts.items():
            self[name] = self.get(name, 0) + amount

    def add_seconds(self, name: str) -> None:
        """Add the time since the previous call."""
        now = time.monotonic()
        self.add(**{name: now - self._counted_until})
        self._counted_until = now

    def tokens(self) -> dict[str, float]:
        """Return the amounts that are not seconds."""
        return {name: amount for name, amount in self.items() if not name.endswith("_s")}

    def state_dict(self) -> dict[str, Any]:
        """Return the amounts, for a checkpoint."""
        return dict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Add the amounts of a checkpoint to what this process has spent before it read the checkpoint."""
        self.add(**state)
