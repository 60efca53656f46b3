import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from edge_deploy.core.conditions import CONDITION_FIELDS
from edge_deploy.core.errors import BadInput
from partitioner.traces.generate import generate
from partitioner.traces.read import read_recorded, read_trace, trace_members
from partitioner.traces.write import write_trace

LOG = (
    "Time (s),DL throughput (Mbit/s),UL throughput (kbit/s),Ping (ms),CPU %\n"
    "0,10,500,40,5\n1,20,1000,60,50\n2,30,0,80,95\n"
)
SABRE = [
    {"duration_ms": 1500, "bandwidth_kbps": 1000, "latency_ms": 20},
    {"duration_ms": 500, "bandwidth_kbps": 0, "latency_ms": 30},
]


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path, **options):
    with pytest.raises(BadInput) as caught:
        read_trace(path, **options)
    return str(caught.value)


def test_a_log_with_named_columns_is_read_in_si_units_and_says_what_was_filled_in(tmp_path):
    trace = read_trace(write(tmp_path, "log.csv", LOG))
    np.testing.assert_allclose(trace.values["downlink_bps"], [10e6, 20e6, 30e6])
    np.testing.assert_allclose(trace.values["uplink_bps"], [5e5, 1e6, 0])
    np.testing.assert_allclose(trace.values["rtt_s"], [0.04, 0.06, 0.08])
    np.testing.assert_allclose(trace.values["edge_load"], [0.05, 0.5, 0.95])
    assert trace.end_s == 3
    assert set(trace.filled) == {"loss", "edge_memory", "cloud_load", "cloud_memory", "cloud_queue_s"}
    assert trace.repairs == ()


@pytest.mark.parametrize(
    ("header", "field", "factor"),
    [
        ("uplink_mbps", "uplink_bps", 1e6),
        ("UL_bitrate_kbps", "uplink_bps", 1e3),
        ("Upload [MB/s]", "uplink_bps", 8e6),
        ("tx_rate_bps", "uplink_bps", 1.0),
        ("download speed (Mbps)", "downlink_bps", 1e6),
        ("rx throughput Gbit/s", "downlink_bps", 1e9),
        ("DownlinkMbps", "downlink_bps", 1e6),
        ("bandwidth(mbps)", "uplink_bps", 1e6),
        ("throughput_kbits_per_sec", "uplink_bps", 1e3),
    ],
)
def test_rates_are_recognised_by_direction_and_unit(tmp_path, header, field, factor):
    trace = read_trace(write(tmp_path, "log.csv", f"time_s,{header}\n0,2\n1,3\n"))
    np.testing.assert_allclose(trace.values[field], [2 * factor, 3 * factor])
    other = {"uplink_bps": "downlink_bps", "downlink_bps": "uplink_bps"}[field]
    assert "one rate" in trace.filled[other]


@pytest.mark.parametrize(
    ("header", "field", "factor"),
    [
        ("rtt_ms", "rtt_s", 1e-3),
        ("PINGAVG (ms)", "rtt_s", 1e-3),
        ("latency [s]", "rtt_s", 1.0),
        ("packet loss (%)", "loss", 0.01),
        ("cpu_util_percent", "edge_load", 0.01),
        ("server cpu %", "cloud_load", 0.01),
        ("mem_util_percent", "edge_memory", 0.01),
        ("cloud_memory_fraction", "cloud_memory", 1.0),
    ],
)
def test_other_conditions_are_recognised_too(tmp_path, header, field, factor):
    trace = read_trace(write(tmp_path, "log.csv", f"t,{header},uplink_mbps\n0,0.25,1\n1,0.5,1\n"))
    np.testing.assert_allclose(trace.values[field], [0.25 * factor, 0.5 * factor])


def test_spreads_of_the_ping_are_not_taken_for_the_ping(tmp_path):
    text = "t,uplink_mbps,PINGMIN ms,PINGAVG ms,PINGMAX ms,jitter_ms\n0,1,5,10,100,3\n1,1,5,20,100,3\n"
    np.testing.assert_allclose(read_trace(write(tmp_path, "a.csv", text)).values["rtt_s"], [0.01, 0.02])


def test_a_column_without_unit_is_refused_until_the_unit_is_said(tmp_path):
    path = write(tmp_path, "raca.csv", "Timestamp,Speed,DL_bitrate,UL_bitrate\n2019.11.28_07.27.31,3,100,10\n"
                                       "2019.11.28_07.27.32,3,200,20\n")  # fmt: skip
    message = problems_of(path)
    assert "UL_bitrate: its unit is unknown" in message
    assert "--column uplink_bps=UL_bitrate:Mbit/s" in message
    trace = read_trace(path, columns={"uplink": "UL_bitrate:kbit/s", "downlink": "DL_bitrate:kbit/s"})
    np.testing.assert_allclose(trace.values["uplink_bps"], [1e4, 2e4])
    np.testing.assert_allclose(trace.time_s, [0, 1])


def test_a_rate_without_direction_stands_for_both_and_says_so(tmp_path):
    trace = read_trace(write(tmp_path, "a.csv", "t,Throughput (Mbps)\n0,5\n1,6\n"))
    assert "names no direction" in trace.filled["uplink_bps"]
    assert "one rate" in trace.filled["downlink_bps"]
    np.testing.assert_array_equal(trace.values["uplink_bps"], trace.values["downlink_bps"])


def test_a_column_without_a_name_is_no_time(tmp_path):
    path = write(tmp_path, "index.csv", ",uplink_mbps\n0,1\n1,2\n")
    assert "no column of time" in problems_of(path)
    assert len(read_trace(path, interval_s=1).time_s) == 2


def test_a_column_that_is_not_wanted_is_left_out(tmp_path):
    text = "t,uplink_mbps,pop_ping_drop_rate,ping\n0,1,0.5,30\n1,1,0.25,30\n"
    path = write(tmp_path, "dish.csv", text)
    assert "or leave it out: --column loss=" in problems_of(path)
    trace = read_trace(path, columns={"loss": "", "rtt": "ping:ms"})
    assert trace.filled["loss"] == "constant 0"
    trace = read_trace(path, columns={"loss": "pop_ping_drop_rate:fraction", "rtt": "ping:ms"})
    np.testing.assert_allclose(trace.values["loss"], [0.5, 0.25])


def test_unknown_columns_fields_and_units_are_all_named_at_once(tmp_path):
    path = write(tmp_path, "a.csv", LOG)
    message = problems_of(path, columns={"uplnk": "x", "rtt": "Pong", "edge_load": "CPU %:MHz"})
    assert "did you mean uplink?" in message
    assert "no column 'Pong'" in message
    assert "unit 'MHz'" in message


def test_a_rate_may_be_named_by_its_unit_alone(tmp_path):
    trace = read_trace(write(tmp_path, "a.csv", "seconds,up_mbit,down_mbit,rtt_ms\n0,20,40,10\n1,2,4,60\n"))
    np.testing.assert_allclose(trace.values["uplink_bps"], [20e6, 2e6])
    np.testing.assert_allclose(trace.values["downlink_bps"], [40e6, 4e6])
    np.testing.assert_allclose(trace.values["rtt_s"], [0.01, 0.06])


def test_utilisation_without_time_needs_an_interval_and_a_link(tmp_path):
    path = write(tmp_path, "load.csv", "cpu_util_percent,mem_util_percent,net_in\n10,50,3\n20,60,3\n")
    assert "--interval 1s" in problems_of(path)
    recorded = read_recorded(path, interval_s=10)
    np.testing.assert_allclose(recorded.values["edge_load"], [0.1, 0.2])
    assert recorded.end_s == 20
    message = problems_of(path, interval_s=10)
    assert "tells nothing about the link" in message and "which of net_in it is" in message
    trace = read_trace(
        path, interval_s=10, fill={"uplink": "20 Mbit/s", "rtt": "30 ms", "cloud_load": "bursts"}, seed=3
    )
    assert trace.filled["uplink_bps"] == "constant 20 Mbit/s"
    assert trace.filled["cloud_load"] == "generator bursts, seed 3"
    assert (trace.values["downlink_bps"] == 20e6).all()


def test_utilisation_can_be_that_of_the_cloud(tmp_path):
    path = write(tmp_path, "load.csv", "cpu_util_percent\n10\n20\n")
    recorded = read_recorded(path, interval_s=1, columns={"cloud_load": "cpu_util_percent"})
    assert set(recorded.values) == {"cloud_load"}


def test_other_delimiters_byte_order_marks_comments_and_line_ends_are_read(tmp_path):
    text = "\ufeff# a comment\r\n" + LOG.replace(",", ";").replace("\n", "\r\n")
    path = tmp_path / "log.csv"
    path.write_bytes(text.encode())
    assert len(read_trace(path).time_s) == 3


@pytest.mark.parametrize(
    "stamps",
    [
        ("2024-05-01T10:00:00", "2024-05-01T10:00:02"),
        ("2024-05-01 10:00:00+02:00", "2024-05-01 10:00:02+02:00"),
        ("1714557600", "1714557602"),
        ("1714557600000", "1714557602000"),
        ("10:00:00", "10:00:02"),
    ],
)
def test_stamps_and_epochs_become_seconds_from_the_start(tmp_path, stamps):
    text = "timestamp,uplink_mbps\n" + "".join(f"{stamp},1\n" for stamp in stamps)
    np.testing.assert_allclose(read_trace(write(tmp_path, "a.csv", text)).time_s, [0, 2])


BAD_ROWS = {
    "gap": ("t,uplink_mbps\n0,1\n1,2\n2,3\n60,4\n61,4\n", "line 5: a gap of 58 s", 5),
    "back": ("t,uplink_mbps\n0,1\n1,2\n0.5,3\n2,4\n", "line 4: t = 0.5 goes back in time", 3),
    "again": ("t,uplink_mbps\n0,1\n1,2\n1,3\n2,4\n", "line 4: t = 1 repeats", 3),
    "negative": ("t,uplink_mbps\n0,1\n1,-2\n2,4\n", "line 3: uplink_mbps = '-2' is negative", 3),
    "text": ("t,uplink_mbps\n0,1\n1,many\n2,4\n", "line 3: uplink_mbps = 'many' is not a number", 3),
    "first": ("t,uplink_mbps\n0,-\n1,3\n2,4\n", "line 2: uplink_mbps = '-' is missing", 3),
    "nan": ("t,uplink_mbps\n0,1\n1,NaN\n2,4\n", "line 3: uplink_mbps = 'NaN' is missing", 3),
    "huge": ("t,uplink_mbps\n0,1\n1,1e999\n2,4\n", "line 3: uplink_mbps = '1e999' is not finite", 3),
    "share": ("t,uplink_mbps,cpu %\n0,1,5\n1,2,150\n2,2,5\n", "line 3: cpu % = '150' is more than 100", 3),
    "short": ("t,uplink_mbps\n0,1\n1\n2,4\n", "line 3: 1 cells, the header has 2", 2),
    "no time": ("t,uplink_mbps\n0,1\nnever,2\n2,4\n", "line 3: t = 'never' is not a time", 2),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_refused_with_their_line_or_repaired_when_asked(tmp_path, case):
    text, message, left = BAD_ROWS[case]
    path = write(tmp_path, "bad.csv", text)
    assert message in problems_of(path)
    trace = read_trace(path, repair=True)
    assert len(trace.time_s) == left
    assert len(trace.repairs) == 1
    assert trace.repairs[0].startswith(message[:7])


def test_many_bad_rows_are_counted_not_listed_without_end(tmp_path):
    path = write(tmp_path, "bad.csv", "t,uplink_mbps\n" + "".join(f"{n},x\n" for n in range(1000)))
    message = problems_of(path)
    assert "and 988 more" in message
    assert message.count("\n") < 20
    assert "no value is good" in problems_of(path, repair=True)


def test_a_mahimahi_pair_counts_packets_a_second(tmp_path):
    write(tmp_path, "net.up", "\n".join(["0", "100", "999", "1000", "2000"]) + "\n")
    write(tmp_path, "net.down", "\n".join(map(str, range(3001))) + "\n")
    trace = read_trace(tmp_path / "net.up")
    np.testing.assert_allclose(trace.values["uplink_bps"], [3 * 12000, 2 * 12000])
    np.testing.assert_allclose(trace.values["downlink_bps"], [12e6, 12e6])
    assert trace.end_s == 2
    assert "first 2 s of 3 s" in trace.source
    np.testing.assert_allclose(read_trace(tmp_path / "net.down").values["uplink_bps"], trace.values["uplink_bps"])


def test_a_mahimahi_file_alone_stands_for_both_directions(tmp_path):
    trace = read_trace(write(tmp_path, "net.down", "500\n1500\n2000\n"))
    assert trace.filled["uplink_bps"] == "as downlink (one file)"
    assert trace.values["uplink_bps"].sum() == pytest.approx(3 * 12000)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("5\n7\n6\n9\n", "line 3: 6 goes back in time"),
        ("5\nseven\n8\n9\n", "line 2: 'seven' is not a whole number"),
        ("-5\n7\n8\n9\n", "line 1: -5 is negative"),
        ("1\n2.5\n8\n9\n", "line 2: '2.5' is not a whole number"),
    ],
)
def test_bad_mahimahi_lines_are_refused_or_left_out(tmp_path, lines, message):
    path = write(tmp_path, "net.up", lines)
    assert message in problems_of(path)
    assert read_trace(path, repair=True).repairs[0].endswith("left out")


def test_a_mahimahi_file_of_no_duration_is_refused(tmp_path):
    assert "longer than 0 ms" in problems_of(write(tmp_path, "net.up", "0\n0\n"))


def test_sabre_json_keeps_durations_and_latency(tmp_path):
    trace = read_trace(write(tmp_path, "log.json", json.dumps(SABRE)))
    np.testing.assert_allclose(trace.time_s, [0, 1.5])
    assert trace.end_s == 2
    np.testing.assert_allclose(trace.values["downlink_bps"], [1e6, 0])
    np.testing.assert_allclose(trace.values["rtt_s"], [0.02, 0.03])
    assert "one rate" in trace.filled["uplink_bps"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration_ms": 0}, "entry 2: duration_ms = 0 must be positive"),
        ({"bandwidth_kbps": -1}, "entry 2: bandwidth_kbps = -1"),
        ({"latency_ms": "fast"}, "entry 2: latency_ms = 'fast' is not a number"),
        ({"duration_ms": float("nan")}, "entry 2: duration_ms = nan"),
        ({"bandwidth_kbps": None}, "entry 2: bandwidth_kbps = 'None' is not a number"),
    ],
)
def test_bad_sabre_entries_are_refused_or_left_out(tmp_path, change, message):
    path = write(tmp_path, "log.json", json.dumps([SABRE[0], {**SABRE[1], **change}]))
    assert message in problems_of(path)
    assert len(read_trace(path, repair=True).time_s) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "not JSON"),
        ("{}", "must be a JSON array"),
        ("[]", "must be a JSON array"),
        ("[3]", "entry 1: not an object"),
    ],
)
def test_other_json_is_refused(tmp_path, text, message):
    assert message in problems_of(write(tmp_path, "log.json", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   \n\n", "empty"),
        ("hello\n", "no known trace format"),
        ("1,2\n3,4\n", "needs a header line"),
        ("t,uplink_mbps\n", "no known trace format"),
        ("t,uplink_mbps,uplink_mbps\n0,1,1\n", "two columns are named"),
        ("a,b\n0,1\n", "no column tells a rate"),
        ('t,uplink_mbps\n0,"1\n', "not a CSV file"),
    ],
)
def test_files_that_are_no_trace_are_refused(tmp_path, text, message):
    assert message in problems_of(write(tmp_path, "x.csv", text))


def test_binary_missing_and_damaged_files_are_refused(tmp_path):
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert "not UTF-8" in problems_of(tmp_path / "b.csv")
    assert "cannot be read" in problems_of(tmp_path / "missing.csv")
    assert "cannot be read" in problems_of(tmp_path)
    whole = lzma.compress(LOG.encode())
    (tmp_path / "cut.csv.xz").write_bytes(whole[:-20])
    assert "cannot be read" in problems_of(tmp_path / "cut.csv.xz")
    whole = gzip.compress(LOG.encode())
    (tmp_path / "bad.csv.gz").write_bytes(whole[:-8] + bytes(8))
    assert "cannot be read" in problems_of(tmp_path / "bad.csv.gz")


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_intervals_and_steps_must_be_positive(tmp_path, bad):
    path = write(tmp_path, "a.csv", LOG)
    assert "must be positive" in problems_of(path, interval_s=bad)
    assert "must be positive" in problems_of(path, step_s=bad)


def test_unknown_formats_are_refused(tmp_path):
    assert "did you mean mahimahi?" in problems_of(write(tmp_path, "a.csv", LOG), format="mahimahy")


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)])
def test_compressed_files_are_read(tmp_path, suffix, pack):
    path = tmp_path / f"log.csv.{suffix}"
    path.write_bytes(pack(LOG.encode()))
    trace = read_trace(path)
    assert (trace.source, len(trace.time_s)) == ("log.csv", 3)


def test_archives_are_read_by_member(tmp_path):
    packed = tmp_path / "logs.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        for name in ("a/one.csv", "a/two.csv"):
            info = tarfile.TarInfo(name)
            info.size = len(LOG)
            archive.addfile(info, io.BytesIO(LOG.encode()))
    assert trace_members(packed) == ("a/one.csv", "a/two.csv")
    assert "an archive of 2 files; name one" in problems_of(packed)
    assert "no file fits three" in problems_of(packed, member="three")
    assert "2 files fit a/*" in problems_of(packed, member="a/*")
    assert len(read_trace(packed, member="two.csv").time_s) == 3
    assert read_trace(f"{packed}::*/one.csv").source == "logs.tar.gz::a/one.csv"
    assert "not an archive" in problems_of(write(tmp_path, "a.csv", LOG), member="x")
    zipped = tmp_path / "logs.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("log.csv", LOG)
    assert len(read_trace(zipped).time_s) == 3


def test_our_own_file_reads_back_bit_for_bit(tmp_path):
    trace = generate("markov-link+outages+rtt-process+bursts", seed=5, seconds=90.5, fill={"loss": "1%"})
    write_trace(trace, tmp_path / "own.csv")
    back = read_trace(tmp_path / "own.csv")
    assert (back.source, back.end_s, back.filled, back.repairs) == (trace.source, trace.end_s, trace.filled, ())
    np.testing.assert_array_equal(back.time_s, trace.time_s)
    for name in CONDITION_FIELDS:
        np.testing.assert_array_equal(back.values[name], trace.values[name])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trace 1", "trace 9", "this edge-deploy reads"),
        ("# end_s: 3.0\n", "", "end_s"),
        ("uplink_bps", "uplink", "must be time_s, uplink_bps"),
        ("\n1.0,", "\nlater,", "time_s = 'later' is not a number"),
        ("\n1.0,", "\n0.0,", "does not go forward"),
        ("\n1.0,", "\n1.0,-", "must be finite and not negative"),
    ],
)
def test_damaged_files_of_our_own_are_refused(tmp_path, old, new, message):
    write_trace(generate("markov-link", seed=1, seconds=3), tmp_path / "own.csv")
    text = (tmp_path / "own.csv").read_text()
    assert old in text
    assert message in problems_of(write(tmp_path, "own.csv", text.replace(old, new, 1)))


def test_recorded_traces_of_the_development_data_are_read(data):
    traces = data / "traces"
    pair = read_trace(traces / "mahimahi_cellular/ATT-LTE-driving-2016.up.xz")
    assert pair.end_s == 120.002
    assert pair.values["downlink_bps"].mean() == pytest.approx(45604 * 12000 / 120.002, rel=0.02)
    assert pair.values["uplink_bps"].mean() == pytest.approx(19101 * 12000 / 120.002, rel=0.02)
    for archive, entries in (("hsdpa_3g_norway/3Glogs.tar.gz", 86), ("ghent_4g_lte/4Glogs.tar.gz", 40)):
        names = trace_members(traces / archive)
        assert len(names) == entries
        for name in names[:5]:
            assert (read_trace(traces / archive, member=name).values["rtt_s"] > 0).all()
    load = read_recorded(
        traces / "cpu_mem_datacenter/alibaba2018_days1-4.tar.xz", member="*/day_1/*.csv", interval_s=10.0
    )
    assert len(load.time_s) == 8641
    assert set(load.values) == {"edge_load", "edge_memory"}
