"""Jobs for the process that renders templates."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from notifier.content.template_process import Rendered, Source, TemplateFailed, TemplateProcess

SECONDS = 0.2


def new_process(memory_bytes: int = 64 << 20) -> Iterator[TemplateProcess]:
    process = TemplateProcess(seconds=SECONDS, memory_bytes=memory_bytes)
    yield process
    process.close()


def source(text: str | None = None, *, subject: str | None = None, html: str | None = None) -> Source:
    return Source(uuid4(), "welcome", 3, subject, text, html)


def answer(process: TemplateProcess, text: str, **data: Any) -> Rendered | TemplateFailed:
    [only] = process.render([(source(text), data)])
    return only


def rendered(process: TemplateProcess, text: str, **data: Any) -> str:
    made = answer(process, text, **data)
    assert isinstance(made, Rendered), made
    assert made.text is not None
    return made.text


def failure(process: TemplateProcess, text: str, **data: Any) -> str:
    failed = answer(process, text, **data)
    assert isinstance(failed, TemplateFailed), failed
    return str(failed)


def pid_of(process: TemplateProcess) -> int:
    assert process._child is not None
    return process._child.process.pid
