"""Annotation files as they are published, and a way to put them on disk."""

from __future__ import annotations

from pathlib import Path

KINETICS = "\r\n".join(
    [
        "\ufefflabel,youtube_id,time_start,time_end,split,is_cc",
        '"petting animal (not cat)",--3ouPhoy2A,20,30,train,0',
        '"counting, aloud",_dbcJuKJQNs,0,10,val,0',
        "massaging person's head,0-I2mCJCs6A,1234,1244,validate,1",
        "",
        '"saying ""olé""",zzzzzzzzzzz,5,15,test,0\r\n',
    ]
)
SSV2 = [
    {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    },
    {
        "id": "42326",
        "label": "putting a café cup, a pen and a key on the table",
        "template": "Putting [something], [something] and [something] on the table",
        "placeholders": ["a café cup", "a pen", "a key"],
    },
]
LABELS = {
    "Holding something next to something": "0",
    "Putting something, something and something on the table": "1",
}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path
