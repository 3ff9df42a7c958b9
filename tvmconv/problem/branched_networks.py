"""Networks with branches, layer by layer: Inception-v3 and YOLOv8n."""

from __future__ import annotations

from tvmconv.problem.layers import Image, Network, Workload

# A convolution of a branch: kernel and channels, and whether it halves the image.
_Step = tuple[int | tuple[int, int], int] | tuple[int | tuple[int, int], int, int]


class _Yolo(Network):
    """Ultralytics' blocks, each convolution with SiLU."""

    def silu(self, name: str, kernel: int, channels: int, stride: int = 1) -> None:
        self.conv(name, kernel, channels, stride, activation="silu", pad=kernel // 2)

    def c2f(self, name: str, channels: int, repeats: int) -> None:
        """A split in two halves, of which one passes ``repeats`` bottlenecks; all join."""
        self.silu(f"{name}.split", 1, channels)
        height, width, half = *self.image[:2], channels // 2
        for repeat in range(1, repeats + 1):
            self.image = (height, width, half)
            self.silu(f"{name}.bottleneck{repeat}.conv1", 3, half)
            # An activation comes before this residual, and not behind it: they are not fused.
            self.silu(f"{name}.bottleneck{repeat}.conv2", 3, half)
        self.image = (height, width, (2 + repeats) * half)
        self.silu(f"{name}.join", 1, channels)

    def head(self, name: str, boxes: int, classes: int) -> None:
        """Detection at one scale: boxes as distributions of 16 bins a side, and 80 classes."""
        image = self.image
        for branch, channels, out in (("boxes", boxes, 64), ("classes", classes, 80)):
            self.image = image
            self.silu(f"{name}.{branch}.conv1", 3, channels)
            self.silu(f"{name}.{branch}.conv2", 3, channels)
            self.conv(f"{name}.{branch}.out", 1, out)
        self.image = image

    def joined(self, *images: Image) -> None:
        """Concatenate channels, after the smaller images were doubled to the first one's size."""
        height, width, _ = images[0]
        self.image = (height, width, sum(image[2] for image in images))


def yolov8n() -> Workload:
    """Ultralytics 8, yolov8.yaml at scale n: backbone, neck and heads, 640x640."""
    net = _Yolo((640, 640, 3))
    net.silu("stem", 3, 16, 2)
    levels: list[Image] = []
    for i, (channels, repeats) in enumerate([(32, 1), (64, 2), (128, 2), (256, 1)], start=2):
        net.silu(f"down{i}", 3, channels, 2)
        net.c2f(f"backbone{i}", channels, repeats)
        levels.append(net.image)
    _, third, fourth, _ = levels
    net.silu("pyramid.reduce", 1, 128)
    net.image = (20, 20, 512)  # beside three max-pools of it
    net.silu("pyramid.join", 1, 256)
    fifth = net.image
    net.joined(fourth, fifth)
    net.c2f("up4", 128, 1)
    middle = net.image
    net.joined(third, middle)
    net.c2f("up3", 64, 1)
    net.head("head3", 64, 80)
    net.silu("down_again4", 3, 64, 2)
    net.joined(middle, net.image)
    net.c2f("out4", 128, 1)
    net.head("head4", 64, 80)
    net.silu("down_again5", 3, 128, 2)
    net.joined(fifth, net.image)
    net.c2f("out5", 256, 1)
    net.head("head5", 64, 80)
    return net.workload("yolov8n", "YOLOv8n, {} layers, 640x640")


class _Inception(Network):
    """Szegedy et al. 2015: branches of convolutions with ReLU."""

    def branch(self, name: str, image: Image, *steps: _Step) -> Image:
        """Append a branch; a step is kernel, channels and the stride, 1 if that is not said."""
        self.image = image
        for number, (kernel, channels, *stride) in enumerate(steps, start=1):
            pad, step = ("VALID", stride[0]) if stride else ("SAME", 1)
            self.conv(f"{name}.conv{number}", kernel, channels, step, activation="relu", pad=pad)
        return self.image

    def join(self, *channels: int) -> None:
        """Concatenate branches of so many channels to the last one's image."""
        self.image = (*self.image[:2], sum(channels))


def inception_v3() -> Workload:
    """Szegedy et al. 2015, table 1, as Keras has it; 299x299."""
    net = _Inception((299, 299, 3))
    net.branch("stem", net.image, (3, 32, 2), (3, 32, 1), (3, 64))
    net.pool(3, 2)
    net.branch("stem2", net.image, (1, 80, 1), (3, 192, 1))
    net.pool(3, 2)
    for i, pooled in enumerate((32, 64, 64)):
        image = net.image
        net.branch(f"mixed{i}.1x1", image, (1, 64))
        net.branch(f"mixed{i}.5x5", image, (1, 48), (5, 64))
        net.branch(f"mixed{i}.3x3", image, (1, 64), (3, 96), (3, 96))
        net.branch(f"mixed{i}.pool", image, (1, pooled))
        net.join(64, 64, 96, pooled)
    image = net.image
    net.branch("mixed3.3x3", image, (3, 384, 2))
    net.branch("mixed3.twice", image, (1, 64), (3, 96), (3, 96, 2))
    net.join(384, 96, 288)
    across, down = (1, 7), (7, 1)
    for i, c in ((4, 128), (5, 160), (6, 160), (7, 192)):
        image = net.image
        net.branch(f"mixed{i}.1x1", image, (1, 192))
        net.branch(f"mixed{i}.7x7", image, (1, c), (across, c), (down, 192))
        steps: list[_Step] = [(1, c), (down, c), (across, c), (down, c), (across, 192)]
        net.branch(f"mixed{i}.twice", image, *steps)
        net.branch(f"mixed{i}.pool", image, (1, 192))
        net.join(192, 192, 192, 192)
    image = net.image
    net.branch("mixed8.3x3", image, (1, 192), (3, 320, 2))
    net.branch("mixed8.7x7", image, (1, 192), (across, 192), (down, 192), (3, 192, 2))
    net.join(320, 192, 768)
    for i in (9, 10):
        image = net.image
        net.branch(f"mixed{i}.1x1", image, (1, 320))
        split = net.branch(f"mixed{i}.3x3", image, (1, 384))
        net.branch(f"mixed{i}.3x3.across", split, ((1, 3), 384))
        net.branch(f"mixed{i}.3x3.down", split, ((3, 1), 384))
        split = net.branch(f"mixed{i}.twice", image, (1, 448), (3, 384))
        net.branch(f"mixed{i}.twice.across", split, ((1, 3), 384))
        net.branch(f"mixed{i}.twice.down", split, ((3, 1), 384))
        net.branch(f"mixed{i}.pool", image, (1, 192))
        net.join(320, 768, 768, 192)
    return net.workload("inception_v3", "Inception-v3, {} layers, 299x299")
