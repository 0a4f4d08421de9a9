"""Train a corner network on synthetic shapes and export it: ``python -m models.train [SIZE] [--steps N]``.

The network is a small MagicPoint (DeTone et al., "SuperPoint", 2018): grey picture -> convolutions with
ReLU -> for every cell of 8x8 or 4x4 pixels the logits of its pixels. The paper's last logit ("no corner here")
is fixed at 0: softmax only knows differences, so nothing is lost and an accumulator per cell is saved.

Loss, on pairs of frames of which half only differ by noise and half also by a small shift:

- cross entropy per cell against a corner spread bilinearly over the pixels around its exact place, so that
  the softmax is also a sub-pixel measurement;
- stability: change of the heat map between two noisy shots of the same scene;
- delta sparsity: mean change of the activations between the pair, in units of their int8 step.

The last part of the training is quantisation aware: int8 weights per output channel, 8-bit activations.
Needs torch (the ``train`` extra). One thread, seeds fixed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from models.export import Layer, record, save_network
from models.plans import PLANS, Plan
from models.shapes import Camera, picture, texture, with_share


class Corners(torch.nn.Module):
    """The network of a plan; ``quantise`` switches fake quantisation on."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        channels, self.convolutions = 1, torch.nn.ModuleList()
        for out, kernel, stride in plan.layers:
            conv = torch.nn.Conv2d(channels, out, kernel, stride, padding=Plan.pad(kernel, stride))
            torch.nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            torch.nn.init.zeros_(conv.bias)
            self.convolutions.append(conv)
            channels = out
        torch.nn.init.normal_(self.convolutions[-1].weight, std=0.02)
        torch.nn.init.constant_(self.convolutions[-1].bias, -6.0)
        self.register_buffer("reach", torch.ones(len(plan.layers) - 1))
        self.quantise = False

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Codes - 128 over 128, [B, 1, H, W] -> logits [B, cell*cell, H/cell, W/cell] and the hidden activations."""
        hidden, x = [], image
        for k, conv in enumerate(self.convolutions):
            weight = conv.weight
            if self.quantise:
                step = weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-8) / 127
                weight = weight + (torch.round(weight / step) * step - weight).detach()
            x = F.conv2d(x, weight, conv.bias, conv.stride, conv.padding)
            if k == len(self.convolutions) - 1:
                return x, hidden
            x = F.relu(x)
            if self.training:
                self.reach[k] = 0.98 * self.reach[k] + 0.02 * x.detach().amax()
            if self.quantise:
                step = self.reach[k] / 255
                x = x + (torch.clamp(torch.round(x / step), max=255) * step - x).detach()
            hidden.append(x)
        raise AssertionError("a plan has at least one layer")


def log_heat(logits: torch.Tensor) -> torch.Tensor:
    """Log-probability of the pixels of each cell and, last, of "no corner", [B, cell*cell + 1, h, w]."""
    return F.log_softmax(F.pad(logits, (0, 0, 0, 0, 0, 1)), dim=1)


def targets(corners: list[np.ndarray], plan: Plan) -> np.ndarray:
    """Cell distributions float32[B, cell*cell + 1, h, w] of ``corners`` [N, 3]: each share spread over the four pixels
    around its place."""
    (width, height), cell = plan.size, plan.cell
    heat = np.zeros((len(corners), height + 1, width + 1), np.float32)
    index = np.repeat(np.arange(len(corners)), [len(c) for c in corners])
    x, y, share = np.concatenate(corners).T
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    index, x, y, share = index[inside], x[inside], y[inside], share[inside]
    ix, iy = x.astype(int), y.astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            part = share * np.abs(1 - dx - (x - ix)) * np.abs(1 - dy - (y - iy))
            np.add.at(heat, (index, iy + dy, ix + dx), part)
    cells = heat[:, :height, :width].reshape(-1, height // cell, cell, width // cell, cell)
    cells = cells.transpose(0, 2, 4, 1, 3).reshape(-1, cell * cell, height // cell, width // cell)
    mass = cells.sum(axis=1, keepdims=True)
    return np.concatenate([cells / np.maximum(mass, 1), np.maximum(0, 1 - mass)], axis=1)


def shifted(image: np.ndarray, by: np.ndarray) -> np.ndarray:
    """``image`` moved by ``by`` (x, y) pixels, at most 2, bilinear, border repeated."""
    height, width = image.shape
    start = 2 - by
    x, y = np.floor(start).astype(int)
    fx, fy = (start - [x, y]).astype(np.float32)
    padded = np.pad(image, 3, mode="edge")[1:, 1:]
    part = padded[y:y + height + 1, x:x + width + 1]
    part = part[:, :-1] * (1 - fx) + part[:, 1:] * fx
    return part[:-1] * (1 - fy) + part[1:] * fy


class Feed:
    """Batches from a pool of clean pictures drawn once; flips, camera, noise and shifts are always new."""

    def __init__(self, plan: Plan, pool: int, textures: float, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.plan, self.size = plan, plan.size
        self.images, self.corners = np.zeros((pool, *plan.size[::-1]), np.uint8), []
        for image in self.images:
            if self.rng.random() < textures:
                drawn, corners = texture(self.rng, plan.size)
            else:
                drawn, corners = picture(self.rng, plan.size)
                corners = with_share(corners)
            image[:] = np.rint(drawn)
            self.corners.append(corners)

    def batch(self, count: int, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(pictures [count + pairs, 1, H, W], targets); the last ``pairs`` are second shots of the first.

        Even pairs only differ by noise, odd ones are also shifted by up to 1.5 pixels.
        """
        rng, shots, corners, second, second_corners = self.rng, [], [], [], []
        limit = np.array(self.size) - 1
        for k, pick in enumerate(rng.integers(0, len(self.images), count)):
            image, places = self.images[pick].astype(np.float32), self.corners[pick]
            if rng.random() < 0.5:
                image, places = image[:, ::-1], places * [-1, 1, 1] + [limit[0], 0, 0]
            if rng.random() < 0.5:
                image, places = image[::-1], places * [1, -1, 1] + [0, limit[1], 0]
            camera = Camera.draw(rng, self.size)
            shots.append(camera.shoot(rng, image))
            corners.append(places)
            if k < pairs:
                by = rng.uniform(-1.5, 1.5, 2) if k % 2 else np.zeros(2)
                second.append(camera.shoot(rng, shifted(image, by) if k % 2 else image))
                second_corners.append(places + [*by, 0])
        pictures = (np.stack(shots + second)[:, None] - np.float32(128)) / np.float32(128)
        return torch.from_numpy(pictures), torch.from_numpy(targets(corners + second_corners, self.plan))


def cross_entropy(log_p: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over cells, per 64 pixels; cells with a corner count three times."""
    weight = 1 + 2 * (1 - target[:, -1])
    return -((target * log_p).sum(dim=1) * weight).sum() / weight.sum() * 64 / (target.shape[1] - 1)


def pair_terms(net: Corners, log_p: torch.Tensor, hidden: list[torch.Tensor], count: int,
               pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(heat change of the still pairs per 64 pixels, activation change of all pairs in int8 steps)."""
    heat = log_p.exp()
    still = ((heat[:pairs:2] - heat[count::2]) ** 2).sum(dim=1).mean() * 64 / (heat.shape[1] - 1)
    change = sum((h[:pairs] - h[count:]).abs().mean() / (reach / 255)
                 for h, reach in zip(hidden, net.reach, strict=True))
    return still, change / len(hidden)


QUANTISED = 0.25
"""Last share of the steps that is quantisation aware."""
WARM_UP = 500


def rate_at(step: int, steps: int, settle: float) -> float:
    """The learning rate's factor: up over WARM_UP steps, level, down to a hundredth over the last share ``settle``.

    Until it falls it does not depend on ``steps``, so how long to train can be decided on the way.
    """
    left = min(1.0, (steps - step) / (settle * steps))
    return min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * left)


class Run:
    """A training that can be stored and taken up again: network, optimiser and random state."""

    def __init__(self, plan: Plan, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.options, self.step = options, 0
        self.feed = Feed(plan, options.pool, options.textures, options.seed)
        self.net = Corners(plan)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=options.rate)
        self.seen: list[tuple[float, float, float]] = []

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        torch.save({"step": self.step, "net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(),
                    "random": self.feed.rng.bit_generator.state}, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same command."""
        stored = torch.load(path, weights_only=True)
        self.step = stored["step"]
        self.net.load_state_dict(stored["net"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.feed.rng.bit_generator.state = stored["random"]

    def one_step(self) -> None:
        """A batch, its loss, a step of the optimiser."""
        options, net = self.options, self.net
        net.quantise = self.step >= options.steps * (1 - QUANTISED)
        pictures, target = self.feed.batch(options.batch, options.pairs)
        logits, hidden = net(pictures)
        log_p = log_heat(logits)
        entropy = cross_entropy(log_p, target)
        still, change = pair_terms(net, log_p, hidden, options.batch, options.pairs)
        loss = entropy + options.still * still + options.sparse * change
        for group in self.optimiser.param_groups:
            group["lr"] = options.rate * rate_at(self.step, options.steps, options.settle)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        self.seen.append((entropy.item(), still.item(), change.item()))


def train(plan: Plan, options: argparse.Namespace) -> tuple[Corners, dict]:
    """The trained network and what is worth recording of the run."""
    started = time.process_time()
    run = Run(plan, options)
    drawn = time.process_time() - started
    if options.checkpoint and options.checkpoint.exists():
        run.resume(options.checkpoint)
    while run.step < (options.stop or options.steps):
        run.one_step()
        if run.step % 250 == 0:
            mean = np.mean(run.seen[-250:], axis=0)
            print(f"step {run.step} of {options.steps}: entropy {mean[0]:.4f} still {mean[1]:.4f} "
                  f"change {mean[2]:.2f} codes, {time.process_time() - started:.0f} s", flush=True)
        if options.checkpoint and (run.step % 1000 == 0 or run.step == options.stop):
            run.save(options.checkpoint)
    mean = np.mean(run.seen[-500:], axis=0)
    return run.net, {"batch": options.batch + options.pairs, "torch": torch.__version__,
                     "cpu_seconds": round(time.process_time() - started), "cpu_seconds_drawing": round(drawn),
                     "cross_entropy": round(float(mean[0]), 4), "pair_change_codes": round(float(mean[2]), 2)}


def layers_of(net: Corners) -> list[Layer]:
    """The trained arrays; weights on the int8 grid that they were trained for."""
    layers = []
    for k, conv in enumerate(net.convolutions):
        weight = conv.weight.detach().numpy()
        step = np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True), 1e-8) / 127
        layers.append(Layer((np.rint(weight / step) * step).astype(np.float32), conv.bias.detach().numpy(),
                            conv.stride[0], conv.padding[0], relu=k < len(net.convolutions) - 1))
    return layers


def main() -> None:
    """Command line: see the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__.splitlines()[0])
    parser.add_argument("plan", nargs="?", choices=PLANS, default="35t")
    parser.add_argument("--out", type=Path, help="ONNX file to write (default: the bundled one of this plan)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE",
                        help="written every 1000 steps, and taken up again when it is there, with the same options; "
                             "--steps and --settle may be others")
    parser.add_argument("--stop", type=int, metavar="STEP",
                        help="export what there is after so many steps; with --checkpoint to be taken up again")
    parser.add_argument("--steps", type=int, default=30000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=8, help="how many of the batch get a second shot")
    parser.add_argument("--pool", type=int, default=30000, help="clean pictures drawn")
    parser.add_argument("--textures", type=float, default=0.05, help="share of the pool that is texture")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--still", type=float, default=0.5, help="weight of the stability term")
    parser.add_argument("--sparse", type=float, default=0.01, help="weight of the delta-sparsity term")
    parser.add_argument("--settle", type=float, default=0.4, help="last share of the steps, in which the rate falls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not 0 < options.settle <= 1:
        parser.error("--settle must be above 0 and at most 1")
    if options.steps < 2 * WARM_UP:
        parser.error(f"--steps must be at least {2 * WARM_UP}: the rate rises and falls over them")
    plan = PLANS[options.plan]
    net, run = train(plan, options)
    out = options.out or Path(__file__).parent / "corners" / f"corners_{options.plan}.onnx"
    save_network(out, layers_of(net), plan.size)
    unsaid = ("plan", "out", "checkpoint")
    command = f"python -m models.train {options.plan} " + " ".join(
        f"--{name} {value}" for name, value in vars(options).items() if name not in unsaid and value is not None)
    record(out.parent, out.stem, training={"command": command, "plan": asdict(plan), **run})


if __name__ == "__main__":
    main()
