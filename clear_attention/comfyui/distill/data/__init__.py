"""What a run learns from: pictures that the teacher paints, and pictures with captions."""
