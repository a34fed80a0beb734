# SPDX-License-Identifier: MIT
"""`ferrum bench moe` and its peers in turns, on one device, with their weights loaded all the time.

Pairs of measurements are about a second apart; what counts is their ratio. Writes JSON to the
standard output and a table to the standard error. Exit status 77: no peer can run here.
"""

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = {"triton": "triton_moe.py", "torch": "torch_loop.py"}


class Stopped(Exception):
    """A program ended or took too long."""


class Program:
    """One that speaks the protocol of peer.py; what it says on stderr is kept for its last words."""

    def __init__(self, name, command, environment, end):
        self.name, self.end, self.rest = name, end, b""
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment
        )

    def line(self):
        pipe = self.process.stdout.fileno()
        while b"\n" not in self.rest:
            left = self.end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise Stopped(f"{self.name}: no time left")
            more = os.read(pipe, 4096)
            if not more:
                raise Stopped(f"{self.name} stopped: {self.last_words()}")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def ask(self, tokens):
        try:
            self.process.stdin.write(f"{tokens}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Stopped(f"{self.name} stopped: {self.last_words()}") from None
        return dict(field.split("=", 1) for field in self.line().split())

    def last_words(self):
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"

    def stop(self):
        self.process.kill()
        self.process.wait()


def can_import(module):
    return subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode == 0


def start(args, shape, end):
    """ferrum and the peers that can run; why others cannot."""
    ours = [args.ferrum, "bench", "moe", "-b", "cuda", "--requests", "--no-error", "--format", args.format]
    ours += ["--tokens", args.tokens, "--seconds", str(args.seconds), *shape]
    programs, missing = {}, {}
    for name, script in PEERS.items():
        absent = [module for module in dict.fromkeys(("torch", name)) if not can_import(module)]
        if absent:
            missing[name] = f"there is no {' and no '.join(absent)} here"
            continue
        environment, device = dict(os.environ), "cuda"
        if args.emulated:
            environment["TRITON_INTERPRET"], device = "1", "cpu"
        command = [sys.executable, os.path.join(HERE, script), "--device", device, *shape]
        command += ["--seconds", str(args.seconds), "--tuning", str(args.tuning)]
        programs[name] = Program(name, command, environment, end)
    if programs:
        programs = {"ferrum": Program("ferrum", ours, None, end), **programs}
    for name, program in list(programs.items()):
        try:
            program.line()  # "ready"
        except Stopped as reason:
            program.stop()
            missing[name] = str(reason)
            del programs[name]
    return programs, missing


def measure(programs, missing, tokens, rounds):
    """One row: `rounds` turns; a peer that stops is left out from then on."""
    times, said = {name: [] for name in programs}, {}
    for _ in range(rounds):
        for name, program in list(programs.items()):
            try:
                answer = program.ask(tokens)
            except Stopped as reason:
                missing[name] = str(reason)
                program.stop()
                del programs[name]
                if name == "ferrum":
                    raise
                continue
            times[name].append(float(answer["us"]))
            said[name] = answer
    ours = times["ferrum"]
    row = {"tokens": tokens, "limit_us": float(said["ferrum"]["limit"]), "ferrum_us": ours, "peers": {}}
    for name in PEERS:
        if times.get(name):
            ratios = sorted(theirs / own for own, theirs in zip(ours, times[name]))
            row["peers"][name] = {
                "us": times[name],
                "ratio": [ratios[0], statistics.median(ratios), ratios[-1]],
                "error": float(said[name]["error"]),
                "how": said[name]["how"],
            }
    return row


def print_table(rows):
    names = [name for name in PEERS if any(name in row["peers"] for row in rows)]
    head = ["tokens", "limit us", "ferrum us", "x limit"]
    for name in names:
        head += [f"{name} us", "error", f"{name}/ferrum min", "median", "max"]
    print("| " + " | ".join(head) + " |\n|" + "---:|" * len(head), file=sys.stderr)
    for row in rows:
        ours = statistics.median(row["ferrum_us"])
        cells = [str(row["tokens"]), f"{row['limit_us']:.2f}", f"{ours:.2f}", f"{ours / row['limit_us']:.2f}"]
        for name in names:
            peer = row["peers"].get(name)
            cells += ["-"] * 5 if peer is None else [
                f"{statistics.median(peer['us']):.2f}", f"{peer['error']:.1e}",
                *(f"{ratio:.2f}" for ratio in peer["ratio"]),
            ]  # fmt: skip
        print("| " + " | ".join(cells) + " |", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ferrum", required=True)
    parser.add_argument("--format", default="gptq4")
    parser.add_argument("--tokens", default="1,2,4,8,16,32,64,128,512,4096")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.15, help="of one measurement")
    parser.add_argument("--tuning", type=float, default=60)
    parser.add_argument("--limit", type=float, default=150, help="seconds for everything")
    parser.add_argument("--emulated", action="store_true", help="peers run on the processor: no figure counts")
    args, shape = parser.parse_known_args()
    end = time.monotonic() + args.limit
    programs, missing = start(args, shape, end)
    rows, complete = [], True
    try:
        if "ferrum" in missing:
            raise Stopped(missing["ferrum"])
        for tokens in args.tokens.split(",") if len(programs) > 1 else []:
            rows.append(measure(programs, missing, int(tokens), args.rounds))
    except Stopped as reason:
        complete = False
        print(reason, file=sys.stderr)
    finally:
        for program in programs.values():
            program.stop()
    result = {"format": args.format, "rounds": args.rounds, "measured": not args.emulated}
    json.dump({**result, "missing": missing, "rows": rows}, sys.stdout, indent=1)
    print()
    if rows:
        print_table(rows)
    for reason in missing.values():
        print(reason, file=sys.stderr)
    if complete and not rows:
        sys.exit(77)
    # A peer that could not start is no failure; one that stopped on its way is.
    sys.exit(0 if complete and not any("stopped" in reason for reason in missing.values()) else 1)


if __name__ == "__main__":
    main()
