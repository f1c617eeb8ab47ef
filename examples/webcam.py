"""A webcam loop of one's own: python webcam.py ARTIFACT [CAMERA_OR_VIDEO] [--frames N] [--headless]

For cameras that reconnect, several sources, a web page or MQTT, use edge_resnet.stream instead.
"""

from __future__ import annotations

import argparse

import cv2

import edge_resnet as er


def main() -> None:
    """Show each frame with its best class; q or Escape ends the loop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact")
    parser.add_argument("source", nargs="?", default="0", help="number of a camera, or a video file")
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--headless", action="store_true", help="print instead of opening a window")
    options = parser.parse_args()

    video = cv2.VideoCapture(int(options.source) if options.source.isdecimal() else options.source)
    if not video.isOpened():
        parser.error(f"cannot open {options.source}")
    count = 0
    with er.load(options.artifact) as model:
        while options.frames is None or count < options.frames:
            delivered, frame = video.read()
            if not delivered:
                break
            count += 1
            best = model.predict(frame, top=1, color="bgr").top[0]  # OpenCV's frames are BGR
            text = f"{best.label} {100 * best.probability:.0f} %"
            if options.headless:
                print(f"{count}: {text}")
                continue
            cv2.putText(frame, text, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 255, 0), 2)
            cv2.imshow("edge-resnet", frame)
            if cv2.waitKey(1) in (ord("q"), 27):
                break
    video.release()


if __name__ == "__main__":
    main()
