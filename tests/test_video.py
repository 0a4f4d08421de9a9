"""Sources of frames and the video writer, on files made here and on the shared clips."""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from host import video
from host.errors import UserError
from host.video import VideoWriter, open_source, sample_frames

CLIP = Path(__file__).resolve().parents[2] / "shared/clips/asl_again_640x480_77f.mp4"
needs_clip = pytest.mark.skipif(
    not CLIP.exists(), reason=f"needs the clip {CLIP.name}, which is not in the project"
)


def _frame(number: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A plain grey frame whose value tells its number, so that a decoded frame can be told apart."""
    return np.full((size[1], size[0], 3), 20 + 5 * number, np.uint8)


def _number(frame: np.ndarray) -> int:
    return round((float(frame.mean()) - 20) / 5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames at 10 a second."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, 10) as writer:
        for k in range(20):
            writer.write(_frame(k))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(12):
        Image.fromarray(_frame(k)).save(tmp_path / f"shot{k}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_written_frames_come_back(clip: Path) -> None:
    with open_source(clip) as source:
        assert (source.size, source.fps, source.total, source.live) == ((64, 48), 10.0, 20, False)
        frames = list(source)
    assert [_number(frame) for frame in frames] == list(range(20))
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)


def test_a_source_can_be_read_again_from_its_begin(clip: Path) -> None:
    with open_source(clip) as source:
        first = [_number(frame) for _, frame in zip(range(7), source, strict=False)]
        assert first == list(range(7))
        assert [_number(frame) for frame in source] == list(range(20))


@pytest.mark.parametrize(
    "fps, numbers",
    [
        (5, list(range(0, 20, 2))),
        (20, [k // 2 for k in range(40)]),
        (4, [0, 2, 5, 7, 10, 12, 15, 17]),
        (10, list(range(20))),
    ],
)
def test_resampling_in_time_shows_the_latest_frame(clip: Path, fps: float, numbers: list[int]) -> None:
    with open_source(clip, fps=fps) as source:
        assert [_number(frame) for frame in source] == numbers
        assert (source.fps, source.total) == (fps, len(numbers))


def test_frames_limits_what_comes(clip: Path) -> None:
    with open_source(clip, frames=3) as source:
        assert source.total == 3
        assert [_number(frame) for frame in source] == [0, 1, 2]
    with open_source(clip, frames=99) as source:
        assert source.total == 20


def test_noise_belongs_to_the_frame_number_and_the_seed(clip: Path) -> None:
    def read(**options) -> list[np.ndarray]:
        with open_source(clip, **options) as source:
            return list(source)

    plain, noisy = read(), read(noise=2.0, seed=5)
    difference = np.stack(noisy).astype(float) - np.stack(plain)
    assert difference.std() == pytest.approx(np.sqrt(4 + 1 / 12), abs=0.03)  # rounding adds 1/12
    assert abs(difference.mean()) < 0.03
    assert not np.array_equal(difference[0], difference[1])
    np.testing.assert_array_equal(np.stack(read(noise=2.0, seed=5, fps=5)), np.stack(noisy)[::2])
    assert not np.array_equal(read(noise=2.0, seed=6)[0], noisy[0])
    np.testing.assert_array_equal(sample_frames(clip, 20, noise=2.0, seed=5), noisy)


def test_folder_in_natural_order(folder: Path) -> None:
    with open_source(folder) as source:
        assert (source.size, source.fps, source.total) == ((64, 48), 25.0, 12)
        assert [_number(frame) for frame in source] == list(range(12))
    with open_source(folder, fps=3) as source:  # its rate, not a resampling
        assert (source.fps, len(list(source))) == (3, 12)


def test_folder_of_two_sizes_is_reported(folder: Path) -> None:
    Image.fromarray(_frame(0, (32, 48))).save(folder / "shot7.png")
    with pytest.raises(UserError, match=r"shot7\.png: the image is 32x48, but shot0\.png is 64x48"):
        open_source(folder)


def test_folder_with_a_damaged_image(folder: Path) -> None:
    (folder / "shot3.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"shot3\.png: this is not an image"):
        open_source(folder)
    data = (folder / "shot4.png").read_bytes()
    (folder / "shot3.png").write_bytes(data[: len(data) // 2 + 20])
    with (
        open_source(folder) as source,
        pytest.raises(UserError, match=r"shot3\.png: the image cannot be decoded"),
    ):
        list(source)


def test_exif_orientation_turns_the_image(tmp_path: Path) -> None:
    image = Image.fromarray(np.vstack([_frame(0)[:24], _frame(40)[:24]]))
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned clockwise: the top comes to the right
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    with open_source(tmp_path) as source:
        (frame,) = source
    assert source.size == (48, 64)
    assert frame.shape == (64, 48, 3)
    assert frame[:, :20].mean() > frame[:, 28:].mean() + 150


def test_sample_is_spread_evenly(clip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [_number(frame) for frame in sample_frames(clip, 5)] == [0, 5, 10, 14, 19]
    assert [_number(frame) for frame in sample_frames(folder, 3)] == [0, 6, 11]
    assert [_number(frame) for frame in sample_frames(clip, 99)] == list(range(20))
    monkeypatch.setattr(video, "_SEEK_ABOVE", 10)  # long files are sought in: the same frames
    assert [_number(frame) for frame in sample_frames(clip, 5)] == [0, 5, 10, 14, 19]


def test_sample_of_a_file_that_does_not_tell_its_length(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mkv", 10) as writer:
        for k in range(20):
            writer.write(_frame(k))
    with open_source(tmp_path / "clip.mkv") as source:
        assert source.total is None
        assert len(list(source)) == 20
    assert [_number(frame) for frame in sample_frames(tmp_path / "clip.mkv", 5)] == [0, 5, 10, 14, 19]


def _moov_first(data: bytes) -> bool:
    return data.find(b"moov") < data.find(b"mdat")


def test_bad_sources(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 99)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:-400])
    (tmp_path / "nothing").mkdir()
    for name, message in {
        "missing.mp4": "there is no such file or folder",
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video that can be read",
        "cut.mp4": "truncated",
        "nothing": "the folder has no images",
    }.items():
        with pytest.raises(UserError, match=f"{name}: .*{message}"):
            open_source(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: .*{message}"):
            sample_frames(tmp_path / name)


def test_a_file_with_sound_only(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(UserError, match=r"sound\.wav: there is no video in this file"):
        open_source(tmp_path / "sound.wav")


@needs_clip
def test_a_damaged_video_tells_how_many_frames_are_good(tmp_path: Path) -> None:
    data = bytearray(CLIP.read_bytes())
    data[90_000:95_000] = b"\xaa" * 5000
    (tmp_path / "damaged.mp4").write_bytes(data)
    good = []
    with (
        open_source(tmp_path / "damaged.mp4") as source,
        pytest.raises(
            UserError, match=r"damaged\.mp4: the video breaks off after (\d+) good frames"
        ) as error,
    ):
        good.extend(source)
    assert 5 < len(good) < 77
    assert f"after {len(good)} good" in str(error.value)
    np.testing.assert_array_equal(good, list(open_source(CLIP, frames=len(good))))


def test_a_video_cut_in_the_middle(tmp_path: Path, clip: Path) -> None:
    """With its index first (as for streaming) a cut file opens; fewer frames than announced are reported."""
    rng = np.random.default_rng(1)
    with av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "whole.mp4").read_bytes()
    assert _moov_first(data)
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    with (
        open_source(tmp_path / "cut.mp4") as source,
        pytest.raises(UserError, match=r"cut\.mp4: the video breaks off after \d+ good frames"),
    ):
        list(source)


@needs_clip
def test_a_stream_file_cut_in_the_middle(tmp_path: Path) -> None:
    """A transport stream announces nothing: its last frame is damaged."""
    with av.open(str(tmp_path / "whole.ts"), "w") as out, av.open(str(CLIP)) as container:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "whole.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[: len(data) * 2 // 3])
    assert len(list(open_source(tmp_path / "whole.ts"))) == 77
    good: list[np.ndarray] = []
    with (
        open_source(tmp_path / "cut.ts") as source,
        pytest.raises(UserError, match=r"cut\.ts: the video breaks off after \d+ good frames: .*damaged"),
    ):
        good.extend(source)
    assert 30 < len(good) < 60


def test_frames_that_an_edit_list_hides_are_not_missed(tmp_path: Path, clip: Path) -> None:
    """A trimmed MP4 keeps frames from before its begin, and announces them."""
    with av.open(str(clip)) as container, av.open(str(tmp_path / "trimmed.mp4"), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 5 * packet.duration, packet.dts - 5 * packet.duration
                packet.stream = stream
                out.mux(packet)
    with open_source(tmp_path / "trimmed.mp4") as source:
        assert [_number(frame) for frame in source] == list(range(5, 20))


def test_a_file_cut_between_two_frames(tmp_path: Path) -> None:
    """Nothing is damaged, but the file announces more than it holds."""
    with av.open(str(tmp_path / "whole.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_frame(k), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "whole.avi")) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    (tmp_path / "cut.avi").write_bytes((tmp_path / "whole.avi").read_bytes()[: starts[12]])
    with (
        open_source(tmp_path / "cut.avi") as source,
        pytest.raises(
            UserError, match=r"cut\.avi: the video breaks off after 12 good frames: .* announces 20"
        ),
    ):
        list(source)


@pytest.mark.parametrize(
    "options", [{"fps": 0}, {"fps": -3}, {"frames": 0}, {"noise": -1}, {"noise": float("nan")}]
)
def test_bad_options(clip: Path, options: dict) -> None:
    (name,) = options
    with pytest.raises(UserError, match=f"{name} is "):
        open_source(clip, **options)


@pytest.mark.parametrize("name", ["camera:99", "/dev/video99", "rtsp://127.0.0.1:1/none"])
def test_camera_or_stream_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: the camera or stream cannot be opened"):
        open_source(name)


def test_camera_name() -> None:
    with pytest.raises(UserError, match="camera:front: a camera is written camera:0"):
        open_source("camera:front")


def test_a_stream_is_live_and_read_once(clip: Path, tmp_path: Path) -> None:
    """An MPEG transport stream over TCP, as a camera sends it: no length, no second reading."""
    with av.open(str(tmp_path / "clip.ts"), "w") as out, av.open(str(clip)) as container:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "clip.ts").read_bytes()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    with server:
        with open_source(address) as source:
            assert (source.live, source.total, source.size) == (True, None, (64, 48))
            assert [_number(frame) for frame in source] == list(range(20))
            with pytest.raises(UserError, match="a live source can be read only once"):
                list(source)
        assert [_number(frame) for frame in sample_frames(address, 4)] == [0, 1, 2, 3]
        thread.join()


def test_a_turned_video_is_shown_upright(tmp_path: Path) -> None:
    """A phone held upright stores a lying picture and, in the track header, the matrix that turns it."""
    lying = np.hstack([_frame(0)[:, :32], _frame(40)[:, :32]])  # dark left, bright right
    with VideoWriter(tmp_path / "turned.mp4", 10) as writer:
        writer.write(lying)
    data = bytearray((tmp_path / "turned.mp4").read_bytes())
    matrix = data.find(b"tkhd") + 44
    one, minus_one, unit = (struct.pack(">i", v) for v in (1 << 16, -(1 << 16), 1 << 30))
    zero = bytes(4)
    assert data[matrix : matrix + 36] == one + zero * 3 + one + zero * 3 + unit
    # x' = height - y, y' = x: a quarter turn clockwise
    turn = zero + one + zero + minus_one + zero * 2 + struct.pack(">i", 48 << 16) + zero + unit
    data[matrix : matrix + 36] = turn
    (tmp_path / "turned.mp4").write_bytes(data)
    with open_source(tmp_path / "turned.mp4") as source:
        (frame,) = source
    assert source.size == (48, 64)
    assert frame[-24:].mean() > frame[:24].mean() + 150  # the bright right side comes to the bottom


def test_odd_sizes_gain_a_pixel(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "odd.mp4", 10, (63, 47)) as writer:
        writer.write(_frame(3, (63, 47)))
    with open_source(tmp_path / "odd.mp4") as source:
        assert source.size == (64, 48)
        assert [_number(frame) for frame in source] == [3]


def test_writer_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, 10)
    writer.write(_frame(0))
    assert not path.exists()
    writer.abort()
    assert list(tmp_path.iterdir()) == []

    def fails() -> None:
        with VideoWriter(path, 10) as writer:
            writer.write(_frame(0))
            raise RuntimeError("something")

    with pytest.raises(RuntimeError):
        fails()
    assert list(tmp_path.iterdir()) == []
    VideoWriter(path, 10).close()  # no frame at all
    assert list(tmp_path.iterdir()) == []


def test_writer_may_keep_what_is_done_after_an_interrupt(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"

    def interrupted() -> None:
        with VideoWriter(path, 10) as writer:
            for k in range(4):
                writer.write(_frame(k))
            writer.close()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    with open_source(path) as source:
        assert source.total == 4


def test_writer_replaces_an_older_file_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    writer = VideoWriter(path, 10)
    writer.write(_frame(0))
    assert path.read_bytes() == b"older"
    writer.close()
    writer.close()
    assert path.read_bytes() != b"older"


def test_writer_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out\.mp4: cannot be written: No such file or directory"):
        VideoWriter(tmp_path / "missing" / "out.mp4", 10)
    with pytest.raises(UserError, match=r"out\.mp4: cannot be written: Not a directory"):
        VideoWriter(tmp_path / "file" / "out.mp4", 10)
    with pytest.raises(
        UserError, match=r"out\.gif: the name of a video to write must end in \.mkv, \.mov, \.mp4"
    ):
        VideoWriter(tmp_path / "out.gif", 10)
    with VideoWriter(tmp_path / "out.mp4", 10) as writer:
        writer.write(_frame(0))
        with pytest.raises(ValueError, match="a frame is 32x32, but the video is 64x48"):
            writer.write(_frame(0, (32, 32)))


@needs_clip
def test_shared_clip() -> None:
    with open_source(CLIP, fps=10) as source:
        frames = list(source)
    assert (source.size, source.total, len(frames)) == ((640, 480), 26, 26)
    whole = list(open_source(CLIP))
    np.testing.assert_array_equal(frames[:5], [whole[k] for k in (0, 3, 6, 9, 12)])
