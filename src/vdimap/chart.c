/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk as a picture: a grid of cells in the order of the disk, each shaded by how much of it
 * holds data. The cells are counted first, so that memory is that of the grid. What cannot be asked
 * for in the sandbox (width, colours, character set) comes with the options.
 *
 * A cell is a power of two of bytes, and a row a power of two of cells, so that the labels are round
 * and exact.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "vdimap/print.h"

enum { SHADES = 5 }; /* 0: nothing; 1 to 3: some; 4: all */

struct grid {
	unsigned columns, rows;
	uint64_t cell_bytes, disk_bytes;
	uint64_t count; /* of cells that the disk has */
	uint64_t *yes; /* bytes in each cell */
	uint64_t yes_bytes, ranges;
};

static int grid_new(struct grid *grid, unsigned columns, unsigned rows, uint64_t disk_bytes)
{
	uint64_t cells = (uint64_t)columns * rows;

	*grid = (struct grid){ .columns = columns, .rows = rows, .disk_bytes = disk_bytes };
	grid->cell_bytes = VD_SECTOR;
	while (vd_div_up(disk_bytes, grid->cell_bytes) > cells)
		grid->cell_bytes *= 2;
	grid->count = vd_div_up(disk_bytes, grid->cell_bytes);
	grid->yes = calloc((size_t)cells, sizeof(*grid->yes));
	return grid->yes ? 0 : -ENOMEM;
}

static void grid_add(struct grid *grid, uint64_t start, uint64_t end)
{
	grid->yes_bytes += end - start;
	while (start < end) {
		uint64_t cell = start / grid->cell_bytes;
		uint64_t here = vd_min(end - start, (cell + 1) * grid->cell_bytes - start);

		grid->yes[cell] += here;
		start += here;
	}
}

static int grid_fill(struct grid *grid, struct feed *feed)
{
	struct vd_piece piece;
	bool was_data = false;
	int r;

	while ((r = feed_piece(feed, &piece)) > 0) {
		if (piece.is_data)
			grid_add(grid, piece.start, piece.end);
		grid->ranges += piece.is_data && !was_data;
		was_data = piece.is_data;
	}
	progress_end(&feed->progress);
	return r;
}

/* Any data at all shows, and only a cell that is full looks full. */
static unsigned cell_shade(const struct grid *grid, uint64_t cell)
{
	uint64_t bytes = vd_min(grid->cell_bytes, grid->disk_bytes - cell * grid->cell_bytes);
	uint64_t yes = grid->yes[cell];

	if (yes == 0 || yes == bytes)
		return yes ? SHADES - 1 : 0;
	return 1 + (unsigned)((double)yes / (double)bytes * (SHADES - 2));
}

static const char *const marks_utf8[SHADES] = { "\u00b7", "\u2591", "\u2592", "\u2593", "\u2588" };
static const char *const marks_ascii[SHADES] = { ".", ":", "+", "*", "#" };
/* From grey over blue to yellow: told apart by those who see few colours, too. */
static const char *const colours_terminal[SHADES] = { "90", "34", "36", "32", "33" };
static const char *const colours_svg[SHADES] = { "#e8e8e8", "#b8cfe5", "#7fa8d1", "#3f77b4",
						 "#12406f" };

static void shade_begin(const struct terminal *terminal, unsigned shade)
{
	if (terminal->colour)
		printf("\033[%sm", colours_terminal[shade]);
}

static void shade_end(const struct terminal *terminal)
{
	if (terminal->colour)
		fputs("\033[0m", stdout);
}

static void chart_row(const struct grid *grid, const struct terminal *terminal, unsigned row)
{
	const char *const *marks = terminal->utf8 ? marks_utf8 : marks_ascii;
	uint64_t first = (uint64_t)row * grid->columns;
	uint64_t end = vd_min(first + grid->columns, grid->count);
	unsigned before = SHADES;
	char text[SIZE_TEXT];

	printf("%10s ", multiple_text(text, grid->columns * grid->cell_bytes, row));
	for (uint64_t cell = first; cell < end; cell++) {
		unsigned shade = cell_shade(grid, cell);

		if (shade != before)
			shade_begin(terminal, shade);
		before = shade;
		fputs(marks[shade], stdout);
	}
	shade_end(terminal);
	putchar('\n');
}

/* "data: 1.2 GiB of 10 GiB (12.0 %) in 17 ranges" */
static void print_sum(const struct grid *grid, const struct feed *feed)
{
	char yes[SIZE_TEXT], all[SIZE_TEXT];

	printf("%s: %s of %s (%.1f %%) in %" PRIu64 " range%s", feed->ops->yes,
	       size_text(yes, grid->yes_bytes), size_text(all, grid->disk_bytes),
	       100.0 * (double)grid->yes_bytes / (double)vd_max(grid->disk_bytes, 1), grid->ranges,
	       grid->ranges == 1 ? "" : "s");
}

int print_chart(struct feed *feed, const struct terminal *terminal)
{
	enum { LABEL = 11, FRAME_ROWS = 4, ROWS_MAX = 16 };
	const char *const *marks = terminal->utf8 ? marks_utf8 : marks_ascii;
	unsigned rows = terminal->rows > FRAME_ROWS ? terminal->rows - FRAME_ROWS : 1;
	char text[SIZE_TEXT];
	struct grid grid;
	int r = grid_new(&grid, 1u << vd_log2(terminal->columns - LABEL),
			 (unsigned)vd_min(rows, ROWS_MAX), feed->disk->size);

	if (r == 0)
		r = grid_fill(&grid, feed);
	for (unsigned row = 0; r == 0 && (uint64_t)row * grid.columns < grid.count; row++)
		chart_row(&grid, terminal, row);
	if (r == 0) {
		printf("%*s", LABEL, "");
		for (unsigned shade = 0; shade < SHADES; shade++) {
			static const char *const says[SHADES] = { " none", " to 33 %", " to 67 %",
								  " below 100 %", " all" };

			shade_begin(terminal, shade);
			fputs(marks[shade], stdout);
			shade_end(terminal);
			printf("%s  ", says[shade]);
		}
		printf("\n%*s", LABEL, "");
		print_sum(&grid, feed);
		printf(", %s a block\n", size_text(text, grid.cell_bytes));
	}
	free(grid.yes);
	return r;
}

/* A name as text in XML; source names are escaped already, so that only these are left. */
static void print_xml(const char *text)
{
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", stdout);
		else if (*text == '&')
			fputs("&amp;", stdout);
		else if (*text == '>') /* "]]>" may not stand in text */
			fputs("&gt;", stdout);
		else
			putchar(*text);
	}
}

static void svg_text(unsigned x, unsigned y)
{
	printf("<text x=\"%u\" y=\"%u\" font-family=\"sans-serif\" font-size=\"12\">", x, y);
}

/* Cells of a row that are alike become one rectangle. */
static void svg_rows(const struct grid *grid, unsigned side, unsigned top)
{
	for (uint64_t cell = 0, next; cell < grid->count; cell = next) {
		unsigned shade = cell_shade(grid, cell);
		uint64_t row_end = vd_min((cell / grid->columns + 1) * grid->columns, grid->count);

		for (next = cell + 1; next < row_end && cell_shade(grid, next) == shade; next++)
			;
		printf("<rect x=\"%" PRIu64 "\" y=\"%" PRIu64 "\" width=\"%" PRIu64
		       "\" height=\"%u\" fill=\"%s\"/>\n",
		       cell % grid->columns * side, top + cell / grid->columns * side,
		       (next - cell) * side, side - 1, colours_svg[shade]);
	}
}

int print_svg(struct feed *feed)
{
	enum { COLUMNS = 64, ROWS = 40, SIDE = 10, TOP = 44, LEGEND = 30, LEGEND_SIDE = 126 };
	static const char *const says[SHADES] = { "none", "to 33 %", "to 67 %", "below 100 %",
						  "all" };
	unsigned bottom = TOP + ROWS * SIDE + 8;
	char text[SIZE_TEXT];
	struct grid grid;
	int r = grid_new(&grid, COLUMNS, ROWS, feed->disk->size);

	if (r == 0)
		r = grid_fill(&grid, feed);
	if (r == 0) {
		printf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
		       "viewBox=\"0 0 %u %u\">\n<title>",
		       COLUMNS * SIDE, bottom + LEGEND, COLUMNS * SIDE, bottom + LEGEND);
		print_xml(feed->disk->layers[0]->source->name);
		puts("</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
		svg_text(0, 14);
		print_xml(feed->disk->layers[0]->source->name);
		puts("</text>");
		svg_text(0, 34);
		print_sum(&grid, feed);
		printf(", %s a square</text>\n", size_text(text, grid.cell_bytes));
		svg_rows(&grid, SIDE, TOP);
		for (unsigned shade = 0; shade < SHADES; shade++) {
			printf("<rect x=\"%u\" y=\"%u\" width=\"12\" height=\"12\" fill=\"%s\"/>\n",
			       shade * LEGEND_SIDE, bottom + 4, colours_svg[shade]);
			svg_text(shade * LEGEND_SIDE + 18, bottom + 15);
			printf("%s</text>\n", says[shade]);
		}
		puts("</svg>");
	}
	free(grid.yes);
	return r;
}
