# Plots that the user's code draws without opening a device: one image for each page.

# Where its devices write their pages: to an empty file, all at once when the page is finished.
pages <- file.path(tempdir(), ".pages")
opened <- 0L # devices, in this execution

# What R calls for a plot when no device is open, and for dev.new(). The sizes are those of Jupyter's R, in inches.
open_plot_device <- function(width = getOption("repr.plot.width", 7), height = getOption("repr.plot.height", 5),
                             pointsize = getOption("repr.plot.pointsize", 12), bg = "white", ...) {
  dir.create(pages, showWarnings = FALSE, recursive = TRUE)
  opened <<- opened + 1L
  grDevices::png(file.path(pages, sprintf("%06d-%%06d.png", opened)), width, height, "in", pointsize, bg,
                 res = getOption("repr.plot.res", 120), type = "cairo")
  # For dev.copy() and recordPlot(), which a file device does without.
  grDevices::dev.control("enable")
}

# Those that this runner opened, and not the user's own png() or pdf().
plot_devices <- function() {
  is_ours <- function(device) identical(dirname(paste0("", attr(device, "filepath"))), pages)
  which(vapply(.Devices, is_ours, NA))
}

send_plots <- function() {
  if (!opened) return()
  files <- list.files(pages, full.names = TRUE)
  for (page in files[file.size(files) > 0]) {
    image <- readBin(page, "raw", file.size(page))
    unlink(page)
    send_result(list(`text/plain` = "<plot>", `image/png` = base64(image)), FALSE)
  }
}

# Nothing can be added to a plot once the execution that drew it is over.
finish_plots <- function() {
  if (!opened) return()
  current <- grDevices::dev.cur()
  for (device in plot_devices()) grDevices::dev.off(device)
  if (current %in% grDevices::dev.list()) grDevices::dev.set(current)
  send_plots()
  opened <<- 0L
}
