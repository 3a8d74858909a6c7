"""PyTorch's side of benchmarks/models.py: the same architectures, and steps that do the same.

Needs torch; torchvision and timm where a model comes from them.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

AUXILIARY_WEIGHT = 0.3


def _torchvision(name: str, **options: Any) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, **options)


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def _small_images(name: str) -> nn.Module:
    """A ResNet with the stem of CIFAR: 3x3 at stride 1, no pooling."""
    model = _torchvision(name, num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return model


def _plain(stages: list[int]) -> nn.Module:
    """A ResNet without its shortcuts."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class PlainBlock(BasicBlock):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(x)))

    model = ResNet(PlainBlock, stages)
    for module in model.modules():
        if isinstance(module, PlainBlock):
            module.downsample = None
    return model


def _alexnet_lrn() -> nn.Module:
    model = _torchvision("alexnet")
    layers = list(model.features)
    for after in (5, 2):  # the first two poolings, as they lie behind ReLU
        layers.insert(after, nn.LocalResponseNorm(5, k=2.0))
    model.features = nn.Sequential(*layers)
    return model


def _lenet5() -> nn.Module:
    pool, act = nn.AvgPool2d(2), nn.Tanh()
    stages = (nn.Conv2d(1, 6, 5), act, pool, nn.Conv2d(6, 16, 5), act, pool, nn.Flatten())
    return nn.Sequential(
        *stages, nn.Linear(400, 120), act, nn.Linear(120, 84), act, nn.Linear(84, 10)
    )


def _convnet() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 1
    for stage, width in enumerate((8, 24, 48)):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(2):
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


def _mlp(*units: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for rows, columns in itertools.pairwise(units):
        layers += [nn.Linear(rows, columns), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: _mlp(784, 10),
    "mlp": lambda: _mlp(784, 256, 128, 10),
    "deep_mlp": lambda: _mlp(784, *[100] * 10, 10),
    "lenet5": _lenet5,
    "convnet": _convnet,
    "alexnet_lrn": _alexnet_lrn,
    "plain18": lambda: _plain([2, 2, 2, 2]),
    "plain34": lambda: _plain([3, 4, 6, 3]),
    "googlenet": lambda: _torchvision("googlenet", init_weights=False),
    "inception_v3": lambda: _torchvision("inception_v3", init_weights=False),
    "mobilenet_v1": lambda: _timm("mobilenetv1_100"),
    "efficientnet_lite0": lambda: _timm("tf_efficientnet_lite0"),
} | {
    f"{name}_cifar": lambda name=name: _small_images(name)
    for name in ("resnet18", "resnet34", "resnet50")
}


def create(name: str) -> nn.Module | None:
    """The model that is called `name` here; None where PyTorch's libraries have none."""
    if name in MODELS:
        return MODELS[name]()
    try:
        return _torchvision(name)
    except ValueError:
        return None


class Steps:
    """Training and inference on one batch, as the compiled steps of Fovea have them."""

    def __init__(
        self, model: nn.Module, images: np.ndarray, labels: np.ndarray, precision: str
    ) -> None:
        """Takes uint8 images [B, H, W, C] and labels [B]; precision is float32 or bfloat16."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # What GPUs compute convolutions of bfloat16 fastest by.
        order = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        torch.backends.cudnn.benchmark = True
        self.model = model.to(self.device, memory_format=order)
        channel_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        self.images = torch.from_numpy(channel_first).to(self.device, memory_format=order)
        self.labels = torch.from_numpy(labels).long().to(self.device)
        self.low = precision == "bfloat16"
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4
        )
        self.compiled = torch.compile(self.model)

    def _logits(self, compiled: bool) -> list[torch.Tensor]:
        """Of the main head and of the auxiliary ones, in float32."""
        standardised = self.images.float() / 255.0 * 2.0 - 1.0
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            outputs = (self.compiled if compiled else self.model)(standardised)
        heads = [outputs] if isinstance(outputs, torch.Tensor) else [*outputs]
        return [head.float() for head in heads if head is not None]

    def train(self, compiled: bool) -> Callable[[], Any]:
        """Returns one step of stochastic gradient descent with momentum."""

        def step() -> torch.Tensor:
            self.model.train()
            self.optimizer.zero_grad()
            losses = [nn.functional.cross_entropy(x, self.labels) for x in self._logits(compiled)]
            loss = losses[-1] if len(losses) == 1 else self._weighted(losses)
            loss.backward()
            self.optimizer.step()
            return loss

        return step

    @staticmethod
    def _weighted(losses: list[torch.Tensor]) -> torch.Tensor:
        return losses[0] + AUXILIARY_WEIGHT * sum(losses[1:], torch.zeros(()).to(losses[0]))

    def predict(self, compiled: bool) -> Callable[[], Any]:
        """Returns one pass in evaluation mode, to probabilities."""

        def step() -> torch.Tensor:
            self.model.eval()
            with torch.inference_mode():
                return self._logits(compiled)[0].softmax(-1)

        return step

    def wait(self, _: Any) -> None:
        """Until the device has computed all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
