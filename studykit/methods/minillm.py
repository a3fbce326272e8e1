"""Policy gradient of KL(q‖p) over whole answers, sampled from a mixture of student and teacher (MiniLLM).

The one-step term is KL(q‖p) in full, and the policy gradient accounts for the tokens after it. Samples come from the
mixture that the importance weights assume, hence at temperature 1.

Formula: the gradient of `KL(q‖p)` of whole answers: `ρ_t KL(q_t‖p_t)` at each token, plus the policy gradient of the
mean reward of the tokens after it; samples from `0.2 p + 0.8 q`, with `ρ_t = q / (0.2 p + 0.8 q)`.

Code: microsoft/LMOps@7b14befcfabd:minillm/minillm/losses.py, microsoft/LMOps@19f288d4dbab:minillm/minillm/sampler.py
with microsoft/LMOps@46f17dec81ac:minillm/scripts/gpt2/minillm/train_base_xl.sh over the defaults of
microsoft/LMOps@29fe35c609dc:minillm/arguments.py.

Differs: the release counts a token's own reward in A_t beside the one-step term; the paper and this kit begin after it
(tests/losses/test_against_releases.py::test_minillms_release_counts_a_tokens_own_reward).

Differs: in the release γ is 0.95, rewards are divided by 0.5, a sample is used in up to four epochs with PPO's ratio,
and the one-step term has weight 1; here γ is 1, a sample is used once, and the weight is ρ_t.

Differs: the release whitens over padding too, and adds a loss on a plain corpus, half of it distillation.

Source: Gu et al. (2024, arXiv 2306.08543), MiniLLM: Knowledge Distillation of Large Language Models.
"""

from studykit.methods import Recipe

minillm = Recipe(
    loss="policy_gradient",
    loss_options={
        "discount": 1.0,
        "one_step": True,
        "length_normalised": True,
        "whiten": True,
        "teacher_share": 0.2,
        "clip": 0.2,
    },
    rollout="student",
    rollout_options={"teacher_share": 0.2},
    settable=(),
    hidden=("one_step", "length_normalised", "sampling_temperature", "top_p"),
)
