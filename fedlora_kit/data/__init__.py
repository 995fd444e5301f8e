"""Examples: where they come from, how they are encoded, how batches are cut."""

from fedlora_kit.data.encoded import EncodedData, EncodedImages, EncodedText, encode_text
from fedlora_kit.data.encoded_causal import EncodedCausal, encode_causal
from fedlora_kit.data.sources import TaskData, fingerprint, load_task
from fedlora_kit.data.task import Examples, Task
from fedlora_kit.data.tasks import TASKS, get_task, register_task

__all__ = [
    "TASKS",
    "EncodedCausal",
    "EncodedData",
    "EncodedImages",
    "EncodedText",
    "Examples",
    "Task",
    "TaskData",
    "encode_causal",
    "encode_text",
    "fingerprint",
    "get_task",
    "load_task",
    "register_task",
]
