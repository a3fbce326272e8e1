"""Which rows of an output head are tokens, and which of them student and teacher share."""

from typing import Any

from studykit.errors import InputError


def shared_vocabulary(student_tokenizer: Any, teacher_tokenizer: Any) -> int:
    """Return the number of token ids that mean the same to both models: the rows on which they can be compared.

    Models of one family are often padded to different sizes. Rows past the tokenizer belong to no token and are left
    out on both sides: padding the smaller side with zeros would give those rows probability.

    Raises:
        InputError: the tokenizers differ.
    """
    student, teacher = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if not same_vocabulary(student_tokenizer, teacher_tokenizer):
        differing = sorted(set(student.items()) ^ set(teacher.items()))[:3]
        raise InputError(
            f"student and teacher have different tokenizers ({len(student):,} and {len(teacher):,} tokens; first "
            f"differences: {', '.join(token for token, _ in differing)}): token by token they cannot be compared; "
            "take a teacher with the student's tokenizer, or a method that compares across tokenizers (`uld`, `seqkd`)"
        )
    return token_rows(student_tokenizer)


def token_rows(tokenizer: Any) -> int:
    """Return the number of rows of an output head that belong to a token; models are often padded to more."""
    return max(tokenizer.get_vocab().values()) + 1


def same_vocabulary(student_tokenizer: Any, teacher_tokenizer: Any) -> bool:
    """Return whether every token has the same id in both."""
    return student_tokenizer.get_vocab() == teacher_tokenizer.get_vocab()
