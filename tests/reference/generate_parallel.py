#!/usr/bin/env python3
"""Write trajectories of methods whose steps two processes share: OUT_DIR/<method>.json, in float64.

    python generate_parallel.py OUT_DIR [METHOD ..]

Network, data and hyper-parameters are those of generate_trajectories.py, whose code this runs: each of PROCESSES processes
has its run of rows of every batch, in order, batch norm sees these alone, and gradients are averaged before each update, as
torch.nn.parallel.DistributedDataParallel does. Losses that compare images see the rows of all processes.

Each process has the loss of the whole batch then, so gradients with respect to gathered rows are added up over the processes
on their way back, and the mean over the processes divides them by as many: what remains is the gradient of one loss. A
gather that keeps its own part of the gradient alone would give a share of 1 / PROCESSES.
"""
import argparse
import pathlib
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing

import generate_trajectories as trajectories

PROCESSES = 2
METHODS = (trajectories.simclr, trajectories.moco, trajectories.barlow_twins, trajectories.vicreg, trajectories.swav, trajectories.nnclr)


class Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows):
        parts = [torch.empty_like(rows) for _ in range(PROCESSES)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient.chunk(PROCESSES)[dist.get_rank()]


class World:
    """As generate_trajectories.Alone, for several processes."""

    def __init__(self):
        each = trajectories.BATCH // PROCESSES
        self.rows = slice(dist.get_rank() * each, (dist.get_rank() + 1) * each)

    def gathered(self, rows):
        return Gather.apply(rows)

    def mean(self, tensor):
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor / PROCESSES

    def least(self, number):
        number = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(number, dist.ReduceOp.MIN)
        return number.item()


def work(rank, rendezvous, out_dir, names):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=PROCESSES)
    trajectories.WORLD = World()
    for method in METHODS:
        if not names or method.__name__ in names:
            trajectories.write(method, out_dir if rank == 0 else None, processes=PROCESSES)
    dist.destroy_process_group()


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("out_dir", type=pathlib.Path)
    ap.add_argument("methods", nargs="*")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (f"{folder}/rendezvous", args.out_dir, args.methods), nprocs=PROCESSES)
