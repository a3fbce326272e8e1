"""The model card beside a run's weights: base model, data, method and scores."""

import json
from typing import Any

import yaml

from studykit.spec import RunSpec


def model_card(spec: RunSpec, metrics: dict[str, float], manifests: list[dict[str, Any]]) -> str:
    """Return a model card in the hub's layout: metadata in YAML, then prose generated from the specification.

    Args:
        spec: the pinned specification of the run.
        metrics: its scores on the held-out items.
        manifests: the data manifest of each stage.
    """
    sources = sorted({data.source for stage in spec.stages for data, _ in stage.parts})
    header = {
        "base_model": spec.student.name,
        "library_name": "transformers",  # adapters are merged
        "pipeline_tag": "text-generation",
        "tags": [
            "studykit",
            *(["lora"] if spec.student.lora else []),
            *sorted({name for stage in spec.stages for name, _ in stage.methods}),
        ],
    }
    stages = [
        f"{number}. `{stage.label}`, {stage.planned_steps:,} optimizer steps on {manifest['seen_examples']:,} of "
        f"{manifest['examples']:,} examples of `{stage.data.source}` (sequences with answers of "
        f"{', '.join(f'{who}: {count:,}' for who, count in manifest['trained_on'].items())})"
        for number, (stage, manifest) in enumerate(zip(spec.stages, manifests, strict=True), 1)
    ]
    teacher = f" with teacher `{spec.teacher.name}`" if spec.teacher else ""
    scores = [f"| {name} | {value:.4f} |" for name, value in metrics.items()] or ["| none | |"]
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
            f"# Run {spec.run_id}\n",
            f"`{spec.student.name}` trained{teacher} on {' and '.join(sources)}:\n",
            *stages,
            "\n| held-out metric | value |\n| --- | ---: |",
            *scores,
            f"\nThe whole specification; the same one gives the same run:\n\n```json\n"
            f"{json.dumps(json.loads(spec.canonical()), indent=1, ensure_ascii=False)}\n```",
            "\nTrained with studykit; the study it follows is arXiv 2606.22942.\n",
        ]
    )
