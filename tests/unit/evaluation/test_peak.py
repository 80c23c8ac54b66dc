"""Peaks are those of the data sheets, or measured; MFU follows its formula."""

import pytest
import torch

from pipeline.evaluation import peak
from pipeline.evaluation.peak import Peak, find_peak, measure_peak, mfu, peak_of


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989.4e12),
        ("NVIDIA H100 80GB HBM3", "32-true", 66.9e12),
        ("NVIDIA H100 PCIe", "16-mixed", 756.5e12),
        ("NVIDIA H200", "bf16-mixed", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312e12),
        ("NVIDIA A10", "bf16-mixed", 125e12),
        ("NVIDIA L40S", "bf16-mixed", 362e12),
        ("NVIDIA L4", "bf16-mixed", 121e12),
        ("Tesla V100-SXM2-32GB", "16-mixed", 125e12),
    ],
)
def test_a_gpu_has_the_peak_of_its_data_sheet(name: str, precision: str, expected: float) -> None:
    assert peak_of(name, precision) == Peak(pytest.approx(expected), "data sheet")


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA Unheard 9000", "cpu, 2 threads"])
def test_a_part_of_a_gpu_and_an_unknown_device_are_measured(name: str) -> None:
    assert peak_of(name, "bf16-mixed") is None


def test_float32_products_may_be_tf32() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        assert peak_of("NVIDIA A100-SXM4-80GB", "32-true") == Peak(156e12, "data sheet")
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.numeric
def test_a_cpu_is_measured_by_its_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, *(moment for span in (0.004, 0.002, 0.003) for moment in (0.01, 0.02, 0.02 + span)), 1.0])
    monkeypatch.setattr(peak.time, "perf_counter", lambda: next(times))
    assert measure_peak(torch.device("cpu"), "32-true") == Peak(pytest.approx(2 * 512**3 / 0.002), "measured")
    monkeypatch.undo()
    found = find_peak(torch.device("cpu"), "32-true")
    assert found.source == "measured"
    assert found.flops > 1e8


@pytest.mark.numeric
def test_utilization_is_the_share_of_the_peak_of_all_devices() -> None:
    assert mfu(rate=250_000, flops=6 * 124e6, peak=989.4e12, devices=1) == pytest.approx(0.18799, rel=1e-4)
    assert mfu(rate=1000, flops=5e9, peak=1e13, devices=2) == pytest.approx(0.25)
