"""Speed and memory: scripts that measure, the goals they are held against, and the tables of docs/benchmarks.md.

    python -m benchmarks                        # all of them, with sizes for this machine: `make bench`
    python -m benchmarks.head --tokens 512      # one of them; --help lists its options

Each of `step`, `head`, `cost`, `study` and `overheads` writes JSON reports to results/benchmarks. `measurement` runs
contestants in turns and measures time and memory; `goals` holds the bounds, `tables` and `cost_figure` make the page.
`shared_folder` simulates workers on separate machines (`simulated_workers`) in `virtual_time`. `faults` tries wrong
input at random. Neither measures time.
`smollm2` trains a real model, which a package has to be installed for, and is run by hand.
Peers such as trl run in a separate environment, `.venv-peers`, where it exists.
"""
