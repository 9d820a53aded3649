"""Faults of those who receive: down, slow, flapping, lying, behind a wire that fails."""

from tests.chaos.faults import Spell, fault
from tests.chaos.receivers import GARBAGE, HANG_UP

#: Breakers let a receiver alone for so long, and then a probe must come round.
_BREAKERS = 40.0


@fault("providers-down", seconds=15, short=5, doubles=True, resumes=_BREAKERS)
def down(spell: Spell) -> None:
    """Receivers and the mail server hang up, also on answers that are on their way, and refuse connections."""
    with spell.loses_answers():
        for proxy in (spell.system.to_sink, spell.system.to_mail):
            proxy.refusing = True
            proxy.drop()
        spell.wait()
        for proxy in (spell.system.to_sink, spell.system.to_mail):
            proxy.behave()


@fault("providers-fail", seconds=15, resumes=_BREAKERS)
def fail(spell: Spell) -> None:
    """Receivers say 503, the mail server 451."""
    spell.system.sink.answers, spell.system.mail.answers = (503,), (451,)
    _last(spell)


@fault("providers-slow", seconds=20, resumes=_BREAKERS)
def slow(spell: Spell) -> None:
    """Receivers and the mail server take two seconds for each message."""
    spell.system.sink.slowness = spell.system.mail.slowness = 2.0
    _last(spell)


@fault("providers-flap", seconds=20, resumes=_BREAKERS)
def flap(spell: Spell) -> None:
    """Receivers and the mail server take one message in two."""
    spell.system.sink.answers, spell.system.mail.answers = (204, 503), (250, 451)
    _last(spell)


@fault("providers-lie", seconds=15, resumes=_BREAKERS)
def lie(spell: Spell) -> None:
    """Receivers read a message and hang up, or answer what is no HTTP."""
    spell.system.sink.answers = (HANG_UP, GARBAGE, 204, 500)
    _last(spell)


@fault("providers-silent", seconds=15, doubles=True, resumes=_BREAKERS)
def silent(spell: Spell) -> None:
    """Connections to receivers and to the mail server go quiet, and so do new ones."""
    with spell.loses_answers():
        for proxy in (spell.system.to_sink, spell.system.to_mail):
            proxy.mute = True
            proxy.silence()
        spell.wait()
        for proxy in (spell.system.to_sink, spell.system.to_mail):
            proxy.behave()
            proxy.forget_silent()


@fault("answers-cut", seconds=15, short=5, doubles=True, resumes=_BREAKERS)
def answers_cut(spell: Spell) -> None:
    """One message or answer in ten is cut in its middle, on its way to or from receivers and the mail server."""
    with spell.loses_answers():
        for proxy in (spell.system.to_sink, spell.system.to_mail):
            proxy.cut_share = 0.1
        spell.wait()
        for proxy in (spell.system.to_sink, spell.system.to_mail):
            proxy.behave()


def _last(spell: Spell) -> None:
    spell.wait()
    spell.system.sink.behave()
    spell.system.mail.behave()
