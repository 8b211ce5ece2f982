"""Where the time goes: ``python tests/benchmarks/profiles.py``, torch's profiler on a step and on a long pass."""

import torch
from training import OurStep, batch_of

ROWS = 14


def show(title: str, work) -> None:
    for _ in range(4):  # until the memory that a step needs is there
        work()
    with torch.profiler.profile() as profile:
        work()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print(f"\n{title}: {total / 1e3:.0f} ms\n\n| operation | ms | share | calls |\n|---|---:|---:|---:|")
    for event in events[:ROWS]:
        took = event.self_cpu_time_total
        print(f"| {event.key} | {took / 1e3:.1f} | {took / total:.1%} | {event.count} |")


def main() -> None:
    ours = OurStep(6, torch.float32)
    for length in (64, 512):
        batch = batch_of(length)
        show(f"training step, 8,192 tokens in rows of {length}", lambda batch=batch: ours(batch))
    ids = torch.randint(2, 12_000, (1, 4_096))
    targets = torch.arange(0, 4_096, 7)[None]
    model = ours.module.model.eval()
    with torch.no_grad():
        show("pass over 4,096 tokens", lambda: model(ids, target_positions=targets))


if __name__ == "__main__":
    main()
