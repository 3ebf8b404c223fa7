# Writes language.json, at the build of the image: what this R is and how its runner is started.
jsonlite <- loadNamespace("jsonlite", lib.loc = "/opt/oncebox/r/library")
recommended <- installed.packages(priority = "recommended")[, "Version"]
jsonlite$write_json(list(
  name = "r",
  # The sandbox's files, and not R's, decide what R starts with: no environment, profile or workspace of the user's.
  command = c("/usr/bin/env", "R_PROFILE_USER=/opt/oncebox/r/runner.R",
              "/usr/bin/R", "--no-echo", "--no-save", "--no-restore", "--no-environ"),
  version = jsonlite$unbox(paste(R.version$major, R.version$minor, sep = ".")),
  packages = lapply(as.list(recommended), jsonlite$unbox),
  notebook = list(displays_values = TRUE, error_name = "ERROR")
), "/opt/oncebox/r/language.json", auto_unbox = TRUE)
