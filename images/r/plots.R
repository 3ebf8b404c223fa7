# Sends plots that the user's code draws without opening a device: one image for each page.

# The directory of the pages. A device creates an empty file for each page and writes all of it when the page is
# finished.
pages <- file.path(tempdir(), ".pages")
opened <- 0L # the number of devices opened in this execution

# R calls this for a plot when no device is open, and for dev.new(). The default sizes are those of Jupyter's R, in
# inches.
open_plot_device <- function(width = getOption("repr.plot.width", 7), height = getOption("repr.plot.height", 5),
                             pointsize = getOption("repr.plot.pointsize", 12), bg = "white", ...) {
  dir.create(pages, showWarnings = FALSE, recursive = TRUE)
  opened <<- opened + 1L
  grDevices::png(file.path(pages, sprintf("%06d-%%06d.png", opened)), width, height, "in", pointsize, bg,
                 res = getOption("repr.plot.res", 120), type = "cairo")
  # Enables dev.copy() and recordPlot(), which do not work with a file device by default.
  grDevices::dev.control("enable")
}

# The devices that the runner opened, without the user's own png() or pdf().
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

# Closes the runner's devices at the end of an execution: a later execution cannot add to its plots.
finish_plots <- function() {
  if (!opened) return()
  current <- grDevices::dev.cur()
  for (device in plot_devices()) grDevices::dev.off(device)
  if (current %in% grDevices::dev.list()) grDevices::dev.set(current)
  send_plots()
  opened <<- 0L
}
