"""What the agent does for one look, so many times and nothing else: to have its instructions counted (callgrind).

``python -m tests.bench.look 10``, with the stand-in for NVML on the library path; ``--empty`` counts to that number.
"""

import sys


def main() -> None:
    """Look, or count."""
    *flags, number = sys.argv[1:]
    if flags:
        for _ in range(int(number)):
            pass
        return
    from gpudiag_agent.assess import Assessor  # noqa: PLC0415 - not for the empty loop
    from gpudiag_agent.checks.registry import all_checks  # noqa: PLC0415
    from gpudiag_agent.nvml import frames, reader  # noqa: PLC0415
    from gpudiag_agent.publisher import Publisher  # noqa: PLC0415
    from gpudiag_agent.recorder.history import History  # noqa: PLC0415
    from gpudiag_api.wire import AgentInfo  # noqa: PLC0415

    assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=all_checks(10.0))
    publisher, history = Publisher(), History(interval=10.0, epoch="1")
    for count in range(int(number)):
        frame = frames.encode(reader.read_sample(full=count == 0))
        sample = frames.decode(frame[frames.HEADER_BYTES :])
        assessor.sampled(sample)
        history.sampled(sample)
        report = assessor.report(sample.taken_at)
        assert report is not None
        assert sample.fault is None, sample.fault
        publisher.publish(report)
        history.reported(report, sample.taken_at)


if __name__ == "__main__":
    main()
