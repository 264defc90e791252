"""Tools and reasoning in a chat: which functions there are, which have to be called, how their arguments are held.

And the arguments of the chat template that concern reasoning.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.parsing.tool_calls.answer_reader import AnswerForm, AnswerReader
from app.core.work.sampling_params import Constraint, ReasoningLimit, ReasoningSpan
from app.http.schemas.llama_cpp_fields import one_bound
from app.http.schemas.openai_fields import NoteText, OpenAIOptions
from app.http.schemas.response_format import BoundedObject
from app.http.schemas.strict import StrictBody

if TYPE_CHECKING:
    from app.models.text_model import TextModel

# OpenAI's own bound on tools, and Anthropic's on names.
MAX_TOOLS = 128

FunctionName = Annotated[str, StringConstraints(pattern="^[a-zA-Z0-9_.-]{1,128}$")]


class Function(StrictBody):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: BoundedObject | None = None
    strict: bool | None = Field(None, description="Arguments follow the schema, by a grammar.")

    def schema_for(self, *, is_forced: bool) -> dict[str, Any]:
        """What arguments follow: the schema where the call is forced or strict, else any object."""
        if not (is_forced or self.strict):
            return {"type": "object"}
        return {"type": "object", "additionalProperties": False} if self.parameters is None else self.parameters


class Tool(StrictBody):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: Function


class FunctionChoice(StrictBody):
    """The name of a function."""

    name: FunctionName


class NamedChoice(StrictBody):
    """The function that the model has to call."""

    type: Literal["function"]
    function: FunctionChoice


class TemplateArguments(StrictBody):
    """Arguments that a caller may give to the chat template."""

    enable_thinking: bool | None = Field(None, description="Whether the model thinks: Qwen3, GLM, SmolLM3.")
    thinking: bool | None = Field(None, description="The same: DeepSeek, Granite, Kimi.")
    clear_thinking: bool | None = Field(None, description="Whether earlier reasoning is left out: GLM-4.7.")
    preserve_thinking: bool | None = Field(None, description="Whether earlier reasoning is shown.")
    thinking_budget: int | None = Field(None, ge=-1, le=2**31, description="Tokens to think with: Seed-OSS.")
    reasoning_effort: NoteText | None = Field(None, description="How long it thinks: gpt-oss and others.")


class ToolOptions(OpenAIOptions):
    """How a conversation is answered that has tools, or a model that reasons."""

    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        None, description="Functions that the model may call, where its chat template renders them."
    )
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = Field(
        None,
        description="none: the tools are not shown to the model. required, or a function by name: it calls, and"
        " arguments follow their schemas.",
    )
    parallel_tool_calls: bool | None = Field(
        None, description="false: at most one call. Default: the model decides how many it makes."
    )
    reasoning_effort: NoteText | None = Field(
        None,
        description="For templates that know it; none turns the reasoning off where the template can. Else a hint.",
    )
    chat_template_kwargs: TemplateArguments | None = Field(
        None, description="Arguments of the chat template, of those that it knows."
    )
    thinking_token_budget: int | None = Field(
        None, ge=0, le=2**31, description="Tokens of reasoning at most; past them the reasoning is closed."
    )
    thinking_budget: int | None = Field(None, ge=0, le=2**31, description="Another name for thinking_token_budget.")

    def check_choice(self) -> None:
        """Who has to be called is there; where a grammar has come to its end, nothing else may forbid that."""
        names = {tool.function.name for tool in self.tools or []}
        if self._is_forced and not (names if self._forced_name is None else self._forced_name in names):
            raise InvalidParameterError("tool_choice: no such function in tools", param="tool_choice")
        clashes = {"ignore_eos": self.ignore_eos, self.least_tokens_param: self.least_tokens}
        if self.has_grammar and (param := next((name for name, sent in clashes.items() if sent), None)):
            text = f"{param}: cannot be sent together with tool calls that follow a grammar"
            raise InvalidParameterError(text, param=param)

    @property
    def _forced_name(self) -> str | None:
        return self.tool_choice.function.name if isinstance(self.tool_choice, NamedChoice) else None

    @property
    def _is_forced(self) -> bool:
        return self.tool_choice == "required" or self._forced_name is not None

    @property
    def _constrains_calls(self) -> bool:
        """Whether something is asked of calls that only a grammar can promise."""
        is_strict = any(tool.function.strict for tool in self.tools or [])
        return bool(self.shown_tools) and (self._is_forced or is_strict or self.parallel_tool_calls is False)

    @property
    def has_grammar(self) -> bool:
        return self.constraint is not None or self._constrains_calls

    def constraint_of(self, model: TextModel, prompt_ids: list[int]) -> Constraint | None:
        if self.constraint is not None:
            return replace(self.constraint, reasoning=self._reasoning_span(model, prompt_ids))
        if not self._constrains_calls:
            return None
        if self.continued and AnswerReader(self.answer_form(model, prompt_ids)).is_within_call:
            text = "continue_final_message: the last message ends within a call, which no grammar goes on with"
            raise InvalidParameterError(text, param="continue_final_message")
        functions = [tool.function for tool in self.tools or []]
        named = [one for one in functions if self._forced_name in (None, one.name)]
        span = self._reasoning_span(model, prompt_ids)
        rules = {
            "notation": model.forms.notation,
            "schemas": {one.name: one.schema_for(is_forced=self._is_forced) for one in named},
            "is_required": self._is_forced,
            "is_parallel": self.parallel_tool_calls is not False and self._forced_name is None,
            "opens": span.opens if span else (),
            "closes": span.closes if span else (),
            "is_thinking": bool(span and span.is_open),
        }
        return Constraint("tool_calls", json.dumps(rules))

    def answer_form(self, model: TextModel, prompt_ids: list[int]) -> AnswerForm:
        """How the answer to this prompt is written; under a response format there are no calls."""
        tools = None if self.constraint is not None else self.shown_tools
        return model.forms.of_request(tools, prompt_ids, self.continued)

    def _reasoning_span(self, model: TextModel, prompt_ids: list[int]) -> ReasoningSpan | None:
        return model.forms.reasoning_span(prompt_ids, self.continued)

    @property
    def continued(self) -> str | None:
        """The start of the answer, where the prompt holds it."""
        return None

    def reading(self, model: TextModel, prompt_ids: list[int]) -> dict[str, Any]:
        has_tools = bool(self.shown_tools)
        return {
            "shown_tokens": model.forms.shown_tokens(has_tools=has_tools),
            "answer": self.answer_form(model, prompt_ids),
            "reasoning_limit": self._reasoning_limit(model, has_tools=has_tools),
        }

    def _reasoning_limit(self, model: TextModel, *, has_tools: bool) -> ReasoningLimit | None:
        budget = self.reasoning_budget
        closing = model.forms.closing(has_tools=has_tools)
        if budget is None or not closing:
            return None
        return ReasoningLimit(budget, tuple(model.encode(closing, add_special_tokens=False)))

    @property
    def reasoning_budget(self) -> int | None:
        """Tokens of reasoning, under whichever name the bound came."""
        return one_bound(self, "thinking_token_budget", "thinking_budget")[1]

    @property
    def shown_tools(self) -> list[dict[str, Any]] | None:
        """Descriptions for the chat template; None where there are none."""
        if not self.tools or self.tool_choice == "none":
            return None
        return [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in self.tools]

    def template_arguments(self, model: TextModel) -> dict[str, Any]:
        """Arguments for the model's chat template. Raises ``UnsupportedParameterError`` for one that it knows not."""
        arguments = self.chat_template_kwargs.model_dump(exclude_none=True) if self.chat_template_kwargs else {}
        for name in arguments:
            if not model.takes_argument(name):
                text = f"chat_template_kwargs: the chat template of the model {model.name} knows no {name}"
                raise UnsupportedParameterError(text, param="chat_template_kwargs")
        hints: dict[str, Any] = {"reasoning_effort": self.reasoning_effort, "thinking_budget": self.reasoning_budget}
        hints = {name: value for name, value in hints.items() if value is not None}
        if self.reasoning_effort == "none":
            hints |= {"enable_thinking": False, "thinking": False}
        return {name: value for name, value in hints.items() if model.takes_argument(name)} | arguments
