"""Where the weights of a model that is not trained are, and in how many bits: what `from_pretrained` takes for it."""

import re
from importlib.util import find_spec
from typing import Any

import torch

from studykit.errors import InputError, unknown
from studykit.spec import Teacher

_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
_DEVICE = re.compile(r"cpu|cuda(:\d+)?|xpu(:\d+)?|disk|\d+")


def placement(teacher: Teacher) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that spread and quantise a teacher; none for one as it is.

    Quantised weights are loaded onto their device, where bitsandbytes packs them: the first one without a `device_map`.
    """
    given: dict[str, Any] = {} if teacher.device_map is None else {"device_map": teacher.device_map}
    if teacher.quantization is None:
        return given
    from transformers import BitsAndBytesConfig

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    first = "cpu" if accelerator is None else accelerator.type
    if teacher.quantization == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        kind = teacher.quantization
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=dtype)
    return {"device_map": {"": first}, "quantization_config": config} | given


def check_placement(teacher: Teacher) -> None:
    """Refuse a device map that transformers does not know, and quantisation without bitsandbytes.

    Raises:
        InputError: with what would do.
    """
    given = teacher.device_map
    if isinstance(given, str) and given not in _MAPS and not _DEVICE.fullmatch(given):
        raise unknown("device_map", given, _MAPS)
    for module, device in given.items() if isinstance(given, dict) else ():
        if not _DEVICE.fullmatch(str(device)):
            raise InputError(
                f"device_map: {module!r} is to be on {device!r}: name a device, such as 0, 'cpu' or 'disk'"
            )
    if teacher.quantization is not None and find_spec("bitsandbytes") is None:
        raise InputError(
            f"quantization {teacher.quantization!r} needs bitsandbytes: pip install 'studykit[quantize]', or leave it "
            "out"
        )
    if teacher.pruned and (teacher.quantization or given):
        raise InputError("a teacher is pruned on one device in full precision: leave quantization and device_map out")
    if teacher.engine and (teacher.quantization or given):
        raise InputError(
            f"engine {teacher.engine!r} places the weights by itself, and reads them as they are on the disk: leave "
            "quantization and device_map out, or the engine"
        )
