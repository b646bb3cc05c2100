"""Pictures (SVG) and pages (HTML, Markdown) of tables in memory; equal tables give equal files."""
