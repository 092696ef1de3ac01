"""`embedding_job.py MODEL CACHE TEXTS OUT [KILL]` on any number of processes: each writes the embeddings that it got.

With KILL, the process kills itself while it writes the chunk of that number.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy
from accelerate import PartialState

from hf_latentrec.semantic_ids import embeddings


def kill_in_chunk(number: int) -> None:
    written, save_file = [], safetensors.numpy.save_file

    def save_half(tensors: dict, path: str, **kwargs) -> None:
        save_file(tensors, path, **kwargs)
        written.append(path)
        if len(written) == number:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.numpy.save_file = save_half


def main(model: str, cache: str, texts: str, out: str, kill: str = "0") -> None:
    embeddings.CHUNK_SIZE = 4
    if int(kill):
        kill_in_chunk(int(kill))
    found = embeddings.embed_texts(json.loads(Path(texts).read_text()), model, cache, batch_size=2)
    state = PartialState()
    np.save(Path(out) / f"process_{state.process_index}_of_{state.num_processes}.npy", found)
    state.wait_for_everyone()
    state.destroy_process_group()
    # Background threads of the backends now and then abort the interpreter's teardown, after the result is written.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
