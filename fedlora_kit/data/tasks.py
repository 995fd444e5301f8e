"""The tasks that the kit knows, by name, and how to make another one known."""

from __future__ import annotations

from fedlora_kit.data import class_names
from fedlora_kit.data.task import Examples, Loader, Task
from fedlora_kit.errors import BadValue, UnknownName

#: nyu-mll/glue on the Hub, pinned.
GLUE_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
#: uoft-cs/cifar100 on the Hub, pinned.
CIFAR100_REVISION = "aadb3af77e9048adbea6b47c21a81e47dd092ae5"
#: coastalcph/lex_glue on the Hub, pinned: tables, no script.
LEX_GLUE_REVISION = "c23fdff1a6bf74e0e1a71cb86f1e781d37da888c"
#: ethz/food101 on the Hub, pinned.
FOOD101_REVISION = "e06acf2a88084f04bce4d4a525165d68e0a36c38"
#: openai/gsm8k on the Hub, pinned.
GSM8K_REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"
#: TNILab/cifar100_proxydata on the Hub, pinned: Fed-HeLLo's external proxy images, one a class of CIFAR-100.
CIFAR100_PROXY_REVISION = "cf8b968058e5033ea5e73b96ebec8caefb2a491b"
#: databricks/databricks-dolly-15k on the Hub, pinned: the last change of its rows.
DOLLY_REVISION = "d72c16e4644a463b9c678c71d9440befd4594556"


def _glue(name: str, columns: tuple[str, ...], labels: tuple[str, ...], **extra: object) -> Task:
    return Task(
        name,
        "text",
        labels,
        columns,
        hub_id="nyu-mll/glue",
        config=name,
        revision=GLUE_REVISION,
        **extra,  # type: ignore[arg-type]
    )


def _builtin_text(kind: str) -> Loader:
    def load(split: str) -> Examples:
        from fedlora_kit.data.builtin import text as builtin_text

        return builtin_text.examples(kind, split)

    return load


def _digits(split: str) -> Examples:
    from fedlora_kit.data.builtin.digits import digits

    images, labels = digits({"train": "train", "validation": "test"}[split], quarter_turns=1)
    return Examples((images,), labels)


def _digits_in_domains(split: str) -> Examples:
    from fedlora_kit.data.builtin.digits import digits_in_domains

    return digits_in_domains(split)


def _topics(split: str) -> Examples:
    from fedlora_kit.data.builtin.topics import topics

    return topics(split)


def _digits_proxy(split: str) -> Examples:
    from fedlora_kit.data.builtin.digits import digits

    images, labels = digits({"train": "pretrain"}[split], quarter_turns=1)
    return Examples((images,), labels)


def _arithmetic(split: str) -> Examples:
    from fedlora_kit.data.builtin import arithmetic as builtin_arithmetic

    return builtin_arithmetic.examples(split)


def _answers(name: str, **extra: object) -> Task:
    """A causal task with the columns question and answer, scored on its test split."""
    return Task(
        name,
        "causal",
        ("answer",),
        ("question", "answer"),
        eval_splits={"test": "test"},
        label_column="",
        **extra,  # type: ignore[arg-type]
    )


def _instructions(split: str) -> Examples:
    from fedlora_kit.data.builtin import instructions as builtin_instructions

    return builtin_instructions.examples(split)


def _responses(name: str, label_names: tuple[str, ...], **extra: object) -> Task:
    """A causal task with the columns instruction, input and response, scored by ROUGE-L."""
    return Task(
        name,
        "causal",
        label_names,
        ("instruction", "context", "response"),
        eval_splits={"test": "test"},
        label_column="category",
        metric="rouge_l",
        **extra,  # type: ignore[arg-type]
    )


TASKS: dict[str, Task] = {
    t.name: t
    for t in (
        _glue("sst2", ("sentence",), ("negative", "positive")),
        _glue("qnli", ("question", "sentence"), ("entailment", "not_entailment")),
        _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate")),
        _glue(
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            eval_splits={"matched": "validation_matched", "mismatched": "validation_mismatched"},
        ),
        Task("polarity", "text", ("negative", "positive"), ("sentence",), loader=_builtin_text("polarity")),
        Task(
            "entailment",
            "text",
            ("entailment", "neutral", "contradiction"),
            ("premise", "hypothesis"),
            eval_splits={"matched": "matched", "mismatched": "mismatched"},
            loader=_builtin_text("entailment"),
        ),
        Task(
            "paraphrase",
            "text",
            ("not_duplicate", "duplicate"),
            ("question1", "question2"),
            loader=_builtin_text("paraphrase"),
        ),
        Task(
            "answerable",
            "text",
            ("entailment", "not_entailment"),
            ("question", "sentence"),
            loader=_builtin_text("answerable"),
        ),
        Task("digits_domains", "image", tuple("0123456789"), ("image",), loader=_digits_in_domains),
        Task("topics", "text", class_names.TOPICS, ("text",), loader=_topics),
        Task(
            "ledgar",
            "text",
            class_names.LEDGAR,
            ("text",),
            eval_splits={"test": "test"},
            hub_id="coastalcph/lex_glue",
            config="ledgar",
            revision=LEX_GLUE_REVISION,
            max_length=512,
        ),
        # SEEN in its data card: the columns image and label. That the third is called domain is our guess.
        Task(
            "domainnet",
            "image",
            class_names.DOMAINNET121,
            ("image",),
            eval_splits={"test": "test"},
            hub_id="TNILab/DomainNet_FL",
            config="default",
            label_order="alphabetical",
            group_column="domain",
            store_side=256,
        ),
        Task(
            "pacs",
            "image",
            class_names.PACS,
            ("image",),
            eval_splits={"test": "test"},
            hub_id="flwrlabs/pacs",
            group_column="domain",
            held_out=0.2,
        ),
        Task("digits", "image", tuple("0123456789"), ("image",), loader=_digits, external="digits_proxy"),
        # the backbone has seen these images, but never in this pose
        Task("digits_proxy", "image", tuple("0123456789"), ("image",), loader=_digits_proxy, eval_splits={}),
        Task(
            "cifar100",
            "image",
            class_names.CIFAR100,
            ("img",),
            eval_splits={"test": "test"},
            hub_id="uoft-cs/cifar100",
            revision=CIFAR100_REVISION,
            label_column="fine_label",
            external="cifar100_proxy",
        ),
        # one photograph a class, of any size (columns as the released code reads them; classes by name)
        Task(
            "cifar100_proxy",
            "image",
            class_names.CIFAR100,
            ("image",),
            eval_splits={},
            hub_id="TNILab/cifar100_proxydata",
            config="default",
            revision=CIFAR100_PROXY_REVISION,
            store_side=256,
            store_fit="stretch",  # as the released code
        ),
        Task(
            "food101",
            "image",
            class_names.FOOD101,
            ("image",),
            hub_id="ethz/food101",
            config="default",
            revision=FOOD101_REVISION,
            store_side=256,
        ),
        _answers("arithmetic", loader=_arithmetic, max_length=96, prompt="plain", max_new_tokens=24),
        _answers(
            "gsm8k",
            hub_id="openai/gsm8k",
            config="main",
            revision=GSM8K_REVISION,
            max_length=1024,
            prompt="alpaca",
            max_new_tokens=400,
        ),
        _responses(
            "instructions",
            class_names.INSTRUCTIONS,
            loader=_instructions,
            max_length=96,
            prompt="plain",
            max_new_tokens=16,
        ),
        _responses(
            "dolly",
            class_names.DOLLY,
            hub_id="databricks/databricks-dolly-15k",
            revision=DOLLY_REVISION,
            max_length=1024,
            too_long="leave_out",
            held_out=50,
            prompt="alpaca",
            max_new_tokens=128,
        ),
        _responses(
            "natural_instructions",
            class_names.NATURAL_INSTRUCTIONS,
            hub_id="allenai/natural-instructions",
            layout="task_files",
            max_length=1024,
            too_long="leave_out",
            held_out=100,
            prompt="alpaca",
            max_new_tokens=128,
        ),
    )
}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UnknownName: no such task; the message lists the known ones, and how to make one.
    """
    if name not in TASKS:
        error = UnknownName("task", name, TASKS)
        error.remedy += "; one on your own data: `fedlora new task`, then --with its file (docs/data.md)"
        raise error
    return TASKS[name]


_OF_THE_KIT = dict(TASKS)


def is_own(name: str) -> bool:
    """Whether a task was registered by the user: other processes know it only where they do the same."""
    return TASKS.get(name) != _OF_THE_KIT.get(name)


def register_task(new: Task, *, replace: bool = False) -> Task:
    """Make a task of your own known by its name, so that runs can name it; once more does no harm.

    `data.own.task_from` makes one from files, tables or a data set of the Hub.

    Raises:
        BadValue: another task has the name and ``replace`` is false; there are no examples, or it scores what
            it trains on.
    """
    if TASKS.get(new.name, new) != new and not replace:
        raise BadValue(
            f"a task called {new.name!r} is already there", "choose another name, or pass replace=True"
        )
    if not (new.loader or new.files or new.tables or new.hub_id):
        raise BadValue(
            f"task {new.name!r} has no examples", "give it files, tables, a loader or a Hub id (task_from)"
        )
    if new.train_split in new.eval_splits.values():
        raise BadValue(
            f"task {new.name!r} is scored on its training split {new.train_split!r}",
            "name another split; or hold a share out (held_out=0.2), under another name than that split's",
        )
    TASKS[new.name] = new
    return new
