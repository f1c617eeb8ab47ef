"""The RTSP server itself, GStreamer's, run by the system's Python: argv[1] is the port (0: any), argv[2:4] user and password.

Prints its port. Paths: /h264 and /audio; with argv[4] "digest" the password is requested by Digest. Ends with its standard input.
"""

from __future__ import annotations

import os
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

_IMAGES = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96"
)
_SOUND = "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0 pt=8"


def _factory(launch: str) -> GstRtspServer.RTSPMediaFactory:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {launch} )")
    factory.set_shared(True)
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("access", "construct"):
        permissions.add_permission_for_role("viewer", f"media.factory.{right}", True)
    factory.set_permissions(permissions)
    return factory


def _auth(user: str, password: str, *, digest: bool) -> GstRtspServer.RTSPAuth:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if digest:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    return auth


def main() -> None:
    """Serve until standard input ends."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    for path, launch in {"/h264": _IMAGES, "/audio": _SOUND}.items():
        server.get_mount_points().add_factory(path, _factory(launch))
    if len(sys.argv) > 3:
        server.set_auth(_auth(sys.argv[2], sys.argv[3], digest=sys.argv[4:] == ["digest"]))
    if server.attach(None) == 0:
        sys.exit("the port is taken")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
