"""What every Kubelore service shares."""
