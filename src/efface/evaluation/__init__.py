"""From a suite to numbers: pictures are drawn once, judged, and counted."""
