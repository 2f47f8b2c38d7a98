"""What can happen to a file of weights."""

from __future__ import annotations

import os
import pickle

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def change(file, change):
    tensors = load_file(file)
    name = sorted(tensors)[0]
    changed = change(tensors, name)
    save_file(tensors if changed is None else changed, file)


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def huge_header(file):
    """The header's length points far behind the end of the file."""
    file.write_bytes((2**60).to_bytes(8, "little") + file.read_bytes()[8:])


def bomb(file):
    file.write_bytes(pickle.dumps(Bomb(file.parent / "exploded")))


def torch_bomb(file):
    torch.save({"model": Bomb(file.parent / "exploded")}, file)


def empty(file):
    file.write_bytes(b"")


def missing(file):
    file.unlink()


def poison(file):
    change(file, lambda tensors, name: tensors[name].fill(np.nan))


def reshape(file):
    change(file, lambda tensors, name: {**tensors, name: np.zeros((3, 5), np.float32)})


def foreign(file):
    change(file, lambda tensors, name: {**tensors, "backbone.conv1.weight": np.ones(3)})


def lacking(file):
    change(file, lambda tensors, name: {k: v for k, v in tensors.items() if k != name})


def integers(file):
    change(file, lambda tensors, name: {**tensors, name: tensors[name].astype(np.int64)})


def half_precision(file):
    """A type that numpy does not have."""
    tensors = {name: torch.from_numpy(value).bfloat16() for name, value in load_file(file).items()}
    save_torch(tensors, file)


DAMAGES = [truncate, huge_header, bomb, torch_bomb, empty, missing, poison, reshape,
           foreign, lacking, integers, half_precision]  # fmt: skip
