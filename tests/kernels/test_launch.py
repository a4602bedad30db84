import threading

import pytest
import torch
import warp as wp

from maquette.kernels.launch import array, launch_rows, parts_for, run_parallel, slabs


@wp.kernel(enable_backward=False)
def add_index(first: wp.int32, out: wp.array[wp.int32]):
    i = first + wp.tid()
    out[i] = out[i] + i


@pytest.mark.parametrize(("total", "parts"), [(10, 3), (3, 10), (1, 1), (0, 4), (1000, 7)])
def test_slabs_cover_every_index_once(total, parts):
    pieces = slabs(total, parts)
    assert [i for first, count in pieces for i in range(first, first + count)] == list(range(total))
    assert all(abs(count - pieces[0][1]) <= 1 for _, count in pieces)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 255, 5000])
def test_every_row_is_launched_once(set_threads, threads, rows):
    set_threads(threads)
    out = torch.zeros(rows, dtype=torch.int32)
    launch_rows(add_index, rows, [array(out)], out.device)
    assert torch.equal(out, torch.arange(rows, dtype=torch.int32))


def test_one_thread_is_one_part(set_threads):
    set_threads(1)
    assert parts_for(10**6) == 1
    set_threads(3)
    assert parts_for(10**6) == 12 and parts_for(300) == 1 and parts_for(0) == 1


def test_jobs_run_on_several_threads(set_threads):
    set_threads(2)
    meet = threading.Barrier(2, timeout=5.0)
    run_parallel([meet.wait, meet.wait])


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_of_a_job_is_raised(set_threads, threads):
    set_threads(threads)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_parallel([fail, lambda: None])


def test_arrays_share_memory_unless_not_contiguous():
    tensor = torch.arange(12.0).view(4, 3).requires_grad_()
    assert array(tensor, wp.vec3).data == tensor.data_ptr()
    assert array(tensor.t()).data != tensor.data_ptr()
