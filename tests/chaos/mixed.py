"""Faults at once: several at random moments, over one another."""

import threading

from tests.chaos.faults import FAULTS, NotHere, Spell, fault

#: At once, at the most.
_HANDS = 2
#: None of a mix lasts longer.
_LONGEST = 8.0


@fault("mix", seconds=60, doubles=True, resumes=40.0, mixes=False)
def mix(spell: Spell) -> None:
    """Faults of all kinds, drawn by the seed, two at a time."""
    names = sorted(name for name, each in FAULTS.items() if each.mixes)
    spell.rng.shuffle(names)
    errors: list[BaseException] = []
    doing: set[str] = set()
    lock = threading.Lock()

    def hand(pauses: list[float]) -> None:
        for pause in pauses:
            with lock:
                # Two at the same server would end one another.
                name = next((n for n in names if FAULTS[n].family not in doing), None)
                if name is None:
                    return
                names.remove(name)
                each = FAULTS[name]
                doing.add(each.family)
            inner = Spell(spell.system, spell.rng, min(each.seconds, _LONGEST), causes=spell.causes)
            try:
                each.happen(inner)
            except NotHere:
                pass
            except BaseException as error:
                errors.append(error)
            with lock:
                doing.remove(each.family)
            spell.wait(pause)

    count = max(1, int(spell.seconds / (_LONGEST + 2)))
    hands = [
        threading.Thread(target=hand, args=([spell.rng.uniform(0.5, 3) for _ in range(count)],)) for _ in range(_HANDS)
    ]
    for each in hands:
        each.start()
    for each in hands:
        each.join()
    if errors:
        raise errors[0]
