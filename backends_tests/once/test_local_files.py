"""Tests that a path means one local file, regardless of its name or content."""

import os

import numpy as np
import pytest

from backends_tests.odd_videos import numbers, picture, write_video
from vmae_keras.data.frames import read_frames
from vmae_keras.data.video import UnreadableVideo

NAMES = [
    "12:30:00.mp4",
    "http:clip.mp4",
    "http://127.0.0.1:9/clip.mp4",
    "pipe:0.mp4",
    "concat:a.mp4|b.mp4",
    "subfile,,start,0,end,0,,:clip.mp4",
    "file:clip.mp4",
    "data:clip.mp4",
    "clip %03d [*].mp4",
    "caf\udce9 \N{SNOWMAN}.mp4",
]
PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nwhole.ts\n#EXT-X-ENDLIST\n",
    "an address": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
    "concat": "ffconcat version 1.0\nfile whole.ts\n",
    "dash": '<?xml version="1.0"?>\n<MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"'
    ' type="static"><Period><AdaptationSet mimeType="video/mp2t"><Representation id="1">'
    "<BaseURL>whole.ts</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
}


def clip(path):
    return write_video(path, [picture(number) for number in range(12)], codec="mpeg4")


def first_frames(path):
    return numbers(read_frames(path, lambda ticks: np.array([0, 5, 11])))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_never_an_address(tmp_path, monkeypatch, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    clip(tmp_path / "written.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert first_frames(name) == [0, 5, 11]
    assert first_frames(os.path.abspath(name)) == [0, 5, 11]


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_a_file_that_names_others_is_not_followed(tmp_path, monkeypatch, kind, suffix):
    clip(tmp_path / "whole.ts")
    assert first_frames(tmp_path / "whole.ts") == [0, 5, 11]
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"list.{suffix}").write_text(PLAYLISTS[kind], "utf-8")
    with pytest.raises(UnreadableVideo, match=r"such as a playlist|Invalid data"):
        first_frames(f"list.{suffix}")
