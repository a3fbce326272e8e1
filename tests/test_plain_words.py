"""Phrases that a colleague has to read twice stand nowhere; the message names a plainer form."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"so (?:many|much|few)": "'this many', or the name of the number: n, k, max_new_tokens",
    r"most (?:tokens|rows|steps|points|examples|items|bytes|words) of": "'maximum number of ... of'",
    r"(?:is|are|was|were|be|been|being) asked": "the verb that is meant: runs, is queried, is requested",
    r"(?:un)?asked for|unasked": "'requested', 'set', 'by default'",
    r"behind": "'after', or for places 'below', 'under'",
    r"what (?:it|they|he|\w+ \w+|(?:a|the|each) \w+(?: \w+)?) says?": "the noun: distribution, content, description",
    r"whoever": "the person or thing that is meant",
    r"once more": "'again'; for a condition 'when further ...'",
    r"of (?:its|their|his|her|one's) own": "'separate', 'another', 'different', or nothing",
    r"(?:a|its|their|this|that|no|each) place": "the noun: position, folder, file, location",
    r"(?:is|are|was|were|been|be) told": "the verb that is meant: receives, is set, is given",
    r"nobody(?!/)": "'no caller', 'nothing', or the passive",
    r"(?:has|have) heard of|hears?": "'knows', 'receives'",
    r"hand(?:s|ed)? (?:\w+ )?(?:on|over)": "'passes', 'returns'",
    r"(?:do|does|did|can|cannot) (?:not )?do without|do without": "'needs', 'requires', 'works without'",
    r"(?:is|are|was|were|be|been) taught": "'is trained on', 'is supervised'",
    r"kind to": "'suitable for'",
    r"(?:something|anything|nothing) else than": "'other than'",
    r"for want of": "'for lack of'",
    r"company": "'the other sequences of the batch'",
    r"asleep|wakes?": "'is not imported', 'imports'",
    r"(?:can|cannot|could|may|to) be had": "'is available', 'is possible'",
    r"(?:methods?|adapters?|stages?|specification|loss|rollout|that|it|they) wants?": "'needs', 'requires'",
    r"(?:where|what|how) (?:\w+ ){0,4}(?:stands?|lies?)": "the noun: location, position, status, lines",
    r"(?:whatever|unless|as|where) (?:the \w+|it) says?": "'even where', 'unless ... documents', 'as specified'",
    r"as good as none": "the plain statement",
}
PHRASES = {
    phrase: re.compile(rf"\b(?:{phrase})\b".replace(" ", r"\s+(?:# |\* )?"), re.IGNORECASE) for phrase in INSTEAD
}
KINDS = ("*.py", "*.md", "*.ipynb", "*.yaml", "*.toml", "*.cff", "Makefile", ".ci/run")
HISTORY = ("results/", "tests/results/golden/", "tests/test_plain_words.py")


def prose(file: Path) -> str:
    """Return the text of a file: of a notebook its cells, of a page what is written by hand."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    if file.suffix == ".py":
        return re.sub(r"\bdef \w+", lambda match: match.group().replace("_", " "), text)  # a test's name is a sentence
    return re.sub(r"<!-- generated.*?<!-- end generated -->", "", text, flags=re.DOTALL)


def written() -> list[Path]:
    """Return the files that people write, as far as git knows them."""
    if not (ROOT / ".git").exists():
        return sorted((ROOT / "studykit").rglob("*.py"))
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *KINDS]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in names if name and not name.startswith(HISTORY) and (ROOT / name).is_file()]


@pytest.mark.parametrize("phrase", INSTEAD)
def test_a_phrase_has_a_plainer_form(phrase):
    found = [
        f"{file.relative_to(ROOT)}: {match.group()!r} in {text[max(0, match.start() - 40) : match.end() + 40]!r}"
        for file in written()
        for text in [prose(file)]
        for match in PHRASES[phrase].finditer(text)
    ]
    assert not found, f"write {INSTEAD[phrase]} instead of\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("keeps so\n    many of them", 1),
        ("# keeps so\n# many of them", 1),
        ("the teacher is\nasked for it", 2),
        ("what the teacher says of it", 1),
        ("this many tokens, in place, after the answer", 0),
    ],
)
def test_a_phrase_is_seen_over_the_end_of_a_line(text, phrases):
    assert sum(bool(pattern.search(text)) for pattern in PHRASES.values()) == phrases
