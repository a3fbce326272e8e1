"""Training: the stages of a specification, resumable, bitwise the same whether or not it was killed on the way."""

from studykit.training.stages import train

__all__ = ["train"]
