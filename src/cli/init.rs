//! `walmill init`: a folder to start from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::config::finding::Finding;

/// `walmill init`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder; made if it is not there.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The database, as in `postgres://walmill@localhost/app`. It goes to `.env.example`, not into
    /// the config.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database: Option<String>,
}

const CONFIG: &str = include_str!("init/walmill.toml");
const SQL: &str = include_str!("init/database.sql");

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let plugins = folder.join("plugins");
    std::fs::create_dir_all(&plugins).map_err(|error| unwritable(&plugins, &error))?;
    let url = arguments.database.as_deref().unwrap_or("postgres://walmill@localhost:5432/app");
    let example = format!(
        "# Copy to .env, fill in, and load it before `walmill run`: set -a; . ./.env; set +a\n\
         DATABASE_URL={}\n",
        without_password(url)
    );
    let config = folder.join("walmill.toml");
    write_new(&config, CONFIG)?;
    write_new(&folder.join(".env.example"), &example)?;
    println!("wrote {}, .env.example and plugins/\n", config.display());
    println!("The database needs this, once, by a superuser:\n\n{SQL}");
    println!(
        "Then, with DATABASE_URL set:\n\n    walmill check\n    walmill doctor\n    walmill run"
    );
    Ok(())
}

/// Writes a file that is not there yet: nobody's work is overwritten.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error
            .kind()
        {
            std::io::ErrorKind::AlreadyExists => {
                let message = format!("{} is there already", path.display());
                Failure::usage(vec![
                    Finding::error("exists", path.display().to_string(), message)
                        .suggest("remove it first, or name another folder: `walmill init FOLDER`"),
                ])
            }
            _ => unwritable(path, &error),
        })?;
    file.write_all(text.as_bytes()).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("{} cannot be written: {error}", path.display());
    Failure::environment(Finding::error("unwritable", path.display().to_string(), message))
}

/// The address with the password left out: this file is meant to be committed.
fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut url) if url.password().is_some() => {
            // It had a password, so it can be without one.
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => url.to_owned(),
    }
}
