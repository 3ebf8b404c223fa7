# Writes language.json while the image is built: the command that starts the runner, and the versions of R and its
# packages.
jsonlite <- loadNamespace("jsonlite", lib.loc = "/opt/oncebox/r/library")
recommended <- installed.packages(priority = "recommended")[, "Version"]
jsonlite$write_json(list(
  name = "r",
  # R starts without an environment file, profile or workspace of the user: the runner takes the profile's place.
  command = c("/usr/bin/env", "R_PROFILE_USER=/opt/oncebox/r/runner.R",
              "/usr/bin/R", "--no-echo", "--no-save", "--no-restore", "--no-environ"),
  version = jsonlite$unbox(paste(R.version$major, R.version$minor, sep = ".")),
  packages = lapply(as.list(recommended), jsonlite$unbox),
  notebook = list(displays_values = TRUE, error_name = "ERROR")
), "/opt/oncebox/r/language.json", auto_unbox = TRUE)
