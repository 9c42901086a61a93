"""The servers that answer redirects side by side, all with the same links."""

import random
import shutil

from servers import Server, Terse, check_redirects, create_in_bulk, free_port, say
from workload import SEED, make_codes, make_targets, without_case_twins

FLOORS = ("floor-epoll", "floor-uring", "floor-hyper")
# What differs from the defaults.
VARIABLES = {"terse": {}, "terse-hyper": {"TERSE_IO": "tokio"}, "terse-off": {"TERSE_CLICKS": "off"}}
WHAT = {
    "floor-epoll": "epoll loop, constant answer (a floor)",
    "floor-uring": "io_uring loop, constant answer (a floor)",
    "floor-hyper": "hyper, one thread, constant answer",
    "nginx-constant": "nginx, constant answer, buffered access log",
    "nginx": "nginx, map of all codes, buffered access log",
    "terse": "terse, every click counted",
    "terse-hyper": "terse through hyper, every click counted",
    "terse-off": "terse, clicks off",
}
SERVERS = tuple(WHAT)
# Codes that must lead to exactly their address before anything is measured.
SAMPLE = 500


def packages(names):
    """What has to be built for these servers."""
    return {"terse-server" if name in VARIABLES else "terse-bench" for name in names if name in {*VARIABLES, *FLOORS}}


def start_servers(names, options, binaries, folder, running):
    """Starts all of them, checks that those that look codes up find them; gives them and the codes to ask for."""
    servers = {}
    for name in names:
        if name in FLOORS:
            argv = [binaries[name], "127.0.0.1:0"]
            servers[name] = Server(name, argv, log=folder / f"{name}.log", cpu=options.server_cpu)
            running.enter_context(servers[name])
    targets = make_targets(options.links)
    terse = {name: VARIABLES[name] for name in names if name in VARIABLES}
    codes = start_terse(terse, targets, options, binaries, folder, running, servers)
    links = without_case_twins(dict(zip(codes or make_codes(len(targets)), targets)))
    for name, location, map_of in (("nginx", "$target", links), ("nginx-constant", targets[0], {})):
        if name in names:
            servers[name] = nginx(name, folder / name, location, map_of, options.server_cpu)
            running.enter_context(servers[name])

    sample = dict(random.Random(SEED).sample(sorted(links.items()), min(SAMPLE, len(links))))
    for name in {"nginx", *VARIABLES} & set(servers):
        check_redirects(servers[name].port, sample)
        say(f"{name} sends {len(sample)} codes out of {len(links):,} to the right address")
    return {name: servers[name] for name in names}, list(links)


def start_terse(variables, targets, options, binaries, folder, running, servers):
    """Starts terse once for each entry of `variables`, on copies of one folder; gives the codes, if there is any."""
    codes, first = None, None
    for name, own in variables.items():
        data = folder / f"{name}-data"
        if first:
            # The same links: a copy of the first one's folder, which is stopped for as long.
            first.stop()
            shutil.copytree(first.env["TERSE_DATA_DIR"], data)
            first.start()
        server = Terse(binaries["terse"], data, cpu=options.server_cpu, workers=1, variables=own)
        running.enter_context(server)
        servers[name] = server
        if not first:
            first = server
            say(f"loading {len(targets):,} links into {name}")
            codes, _ = create_in_bulk(server.port, server.admin_key(), targets)
    return codes


def nginx(name, folder, location, links, cpu):
    """nginx as one would set it up for this task: no file, no upstream, one worker, the log written in blocks."""
    folder.mkdir()
    port = free_port()
    entries = "\n".join(f'    "/{code}" "{target}";' for code, target in links.items())
    (folder / "map.conf").write_text(entries)
    (folder / "nginx.conf").write_text(f"""
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  server_tokens off;
  keepalive_requests 1000000000;
  access_log access.log combined buffer=64k flush=1s;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  map_hash_max_size 262144;
  map_hash_bucket_size 256;
  map $uri $target {{
    include map.conf;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      add_header Cache-Control "private, no-store";
      return 302 {location};
    }}
  }}
}}
""")
    argv = [shutil.which("nginx"), "-p", folder, "-e", "stderr", "-c", "nginx.conf", "-g", "daemon off;"]
    return Server(name, argv, log=folder / "nginx.log", cpu=cpu, port=port)
