"""The header's schema. The training knobs are `dlm.recipe.Recipe`; this module adds what only a document has."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from dlm.document.ulid import is_ulid
from dlm.recipe import PreferenceChoices, PreferenceNumbers, Recipe, RewardRecipe, RftRecipe
from dlm.tasks.spreadsheet import MAX_ROWS

__all__ = [
    "DOCUMENT_VERSION",
    "AdapterSettings",
    "Evaluation",
    "Export",
    "Gate",
    "Header",
    "Preference",
    "PreferenceSettings",
    "Reward",
    "Rft",
    "Source",
    "Training",
]

DOCUMENT_VERSION: Final = 15
"""The newest schema of the existing tool that loads here; `dlm init` writes it."""

_STRICT: Final = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _ulid(value: str) -> str:
    if not is_ulid(value):
        raise ValueError("not a document id: 26 characters of 0-9 and A-Z without I, L, O, U")
    return value


class Source(BaseModel):
    """Files that are read as prose. Patterns are relative to `path`; `**` crosses folders."""

    model_config = _STRICT

    path: str = Field(
        min_length=1, description="file or folder, relative to the document's own folder and inside it"
    )
    include: list[str] = Field(default=["**/*"], description="patterns of the files to read")
    exclude: list[str] = Field(default=[], description="patterns of the files to leave out")


class AdapterSettings(BaseModel):
    """One named adapter. Parsed and checked; training on named adapters is refused for now."""

    model_config = _STRICT

    adapter: Literal["lora", "dora"] = "lora"
    lora_r: int = Field(8, ge=1, le=256)
    lora_alpha: int = Field(16, ge=1)
    lora_dropout: float = Field(0.05, ge=0, le=0.5)
    target_modules: Literal["auto"] | list[str] = "auto"
    learning_rate: float = Field(2e-4, gt=0)


class PreferenceSettings(PreferenceNumbers):
    """The numbers of the preference phase, as the recipe describes them."""


class Preference(PreferenceChoices):
    """The preference phase: the recipe's knobs, in the format's own nesting."""

    enabled: bool | None = Field(None, description="unset = as soon as there are pairs")
    hyperparams: PreferenceSettings = Field(default_factory=lambda: PreferenceSettings.model_validate({}))

    @property
    def stated(self) -> dict[str, Any]:
        """The knobs that the document names, by the names of `PreferenceRecipe`."""
        own = self.model_fields_set & PreferenceChoices.model_fields.keys()
        numbers = self.hyperparams.model_fields_set
        return {
            **{name: getattr(self, name) for name in own},
            **{name: getattr(self.hyperparams, name) for name in numbers},
        }


class Reward(RewardRecipe):
    """The reward phase, as the recipe describes it."""

    @property
    def stated(self) -> dict[str, Any]:
        """The knobs that the document names."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Rft(RftRecipe):
    """Reinforcement fine-tuning, as the recipe describes it."""

    @property
    def stated(self) -> dict[str, Any]:
        """The knobs that the document names."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Training(Recipe):
    """Every knob of a run, and what only a document can say about training."""

    model_config = _STRICT

    sources: list[Source] | None = Field(None, description="files that are read as prose")
    adapters: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")], AdapterSettings] | None = Field(
        None, description="named adapters: {name: settings}"
    )
    preference: Preference = Field(default_factory=lambda: Preference.model_validate({}))
    reward: Reward = Field(default_factory=lambda: Reward.model_validate({}))
    rft: Rft = Field(default_factory=lambda: Rft.model_validate({}))


class Export(BaseModel):
    """Settings of `dlm export`. It has none yet; those of the existing tool are named in warnings."""

    model_config = _STRICT


class Evaluation(BaseModel):
    """One evaluation suite: a task's generator, or a file of cases."""

    model_config = _STRICT

    task: str | None = Field(
        None,
        min_length=1,
        description="case generator: spreadsheet, spreadsheet:pocket or spreadsheet:published",
    )
    cases: str | None = Field(None, min_length=1, description="JSONL file of cases, relative to the document")
    seed: int | None = Field(
        None, ge=0, lt=2**63, description="seed of the generated cases; unset = the split's own"
    )
    n: int | None = Field(
        None, ge=1, description="number of cases; unset = the task's own, or all of the file's"
    )
    rows: int | None = Field(
        None,
        ge=1,
        le=MAX_ROWS,
        description="source rows of each generated table, of its training split too; unset = the split's own",
    )
    split: str | None = Field(
        None,
        min_length=1,
        description="which split of the cases; unset = held-out cases; of a file, all but its training cases",
    )
    grader: str | None = Field(
        None, min_length=1, description="grader; unset = the task's own, or text_similarity for a file"
    )
    pass_threshold: float | None = Field(
        None, ge=0, le=1, description="least score that passes; unset = the grader's own"
    )
    max_new_tokens: int | None = Field(
        None,
        ge=1,
        description="token budget of an answer; unset = what the longest reference needs, and a quarter more",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Evaluation:
        if (self.task is None) == (self.cases is None):
            raise ValueError("needs either task or cases")
        return self


class Gate(BaseModel):
    """The conditions that a version must meet to become current."""

    model_config = _STRICT

    conditions: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="conditions, all of which must hold; none = those for the document's suites"
    )


class Header(BaseModel):
    """Everything between the two `---` lines."""

    model_config = _STRICT

    dlm_id: Annotated[str, AfterValidator(_ulid)] = Field(description="the document's id; names its store")
    dlm_version: int = Field(
        DOCUMENT_VERSION, ge=1, le=DOCUMENT_VERSION, description="version of the document format"
    )
    base_model: str = Field(min_length=1, description="registry name, hf:org/name, or a folder")
    system_prompt: str | None = Field(
        None, description="put before every conversation, in training and in use"
    )
    training: Training = Field(default_factory=lambda: Training.model_validate({}))
    export: Export = Field(default_factory=Export)
    judge: str | None = Field(None, min_length=1, description="default judge of `dlm preference mine`")
    evals: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")], Evaluation] = Field(
        default={}, description="evaluation suites: {name: settings}"
    )
    gate: Gate | None = Field(None, description="what a version must meet to become current")
