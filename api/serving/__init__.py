"""The HTTP server: it reads requests within bounds, off the threads that serve them.

One event loop in each process has all connections. It parses heads, has them judged before any of the body is taken in
(api.request_heads), reads bodies under a limit, a deadline and a least rate, and only then gives a whole request to one
of the threads that run the Flask application; plain events it serves itself (api.fast_path). So a caller that is slow
costs a socket and what it has sent, and no thread. The loop has the answers too: a caller that does not read them keeps
no thread from the next request.

It is our own because none that we measured bounds all of this. The bare view of `python -m benchmarks.servers`, with 64
threads (64 connections, two cores that others used too, medians of runs in turns):

| server   | requests/s | CPU µs each | others, beside 100 unfinished bodies | took of 100 MB without end | grew by |
|----------|------------|-------------|--------------------------------------|----------------------------|---------|
| ours     | 3,739      | 171         | 22 ms                                | 0.4 MB                     | 0.2 MB  |
| granian  | 3,954      | 193         | no answer                            | all                        | 101 MB  |
| gunicorn | 1,468      | 406         | no answer                            | all                        | 100 MB  |
| waitress | 2,110      | 304         | no answer                            | all                        | 1 MB    |
| uvicorn  | 1,142      | 601         | no answer                            | all                        | 0.3 MB  |

POST /api/v1/events by way of Flask costs the same CPU as behind granian (some 860 µs, within 5% either way in nine runs
in turns).
granian's asynchronous interfaces would read bodies off the threads, but its connections are out of reach: nothing there
bounds those of one address, what is sent too slowly, or callers that do not read. waitress reads off its threads, and
has neither a deadline for bodies nor a bound by route. HTTP itself is parsed by httptools: llhttp, the parser of
Node.js, in its strict mode.

`bounds` says how much is granted, `messages` what HTTP/1.1 looks like, `connection` is one caller, `workers` are the
threads, `server` is one process, and `processes` are several.
"""
