"""Motion of a clip for MGM's and TrackMAE's masks and for TrackMAE's motion target."""
