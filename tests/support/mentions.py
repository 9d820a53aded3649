"""A person, and the ways in which texts spell them."""

from notifier.people.mentions import Named
from notifier.vocabulary.states import Channel

PERSON = Named.of(
    ["u_815-ada", "42", "guest"],
    [
        (Channel.EMAIL, "Smith+news@bücher.example"),
        (Channel.EMAIL, "smith@corp.example"),
        (Channel.SMS, "+4915112345678"),
        (Channel.PUSH, "token:AAAA-1111"),
        (Channel.PUSH, "one"),
        (Channel.WEBHOOK, "https://me:pw@hooks.example/a?user=1"),
        (Channel.WEBHOOK, "https://shop.example/"),
        (Channel.CHAT, "slack://TOKEN/C1"),
    ],
)


SPELLINGS = [
    "smith@corp.example",
    "SMITH@Corp.Example",
    "Dear smith@corp.example, welcome",
    "Write to <smith@corp.example>.",
    "https://x.example/?to=smith%40corp.example&a=1",
    "https://x.example/?to=%20smith@corp.example",
    "smith&#64;corp.example",
    "smith@corp.example.pdf",
    "smith+news@bücher.example",
    "Smith%2Bnews%40xn--bcher-kva.example",
    "+4915112345678",
    "+49 151 1234-5678",
    "0049 (151) 12345678",
    "call 4915112345678 now",
    "u_815-ada",
    "id=u_815-ada;",
    "token:AAAA-1111",
    "https://me:pw@hooks.example/a?user=1",
    "see https://hooks.example/a?user=1.",
    "slack://TOKEN/C1",
]
