use std::path::{Path, PathBuf};

use config::{Config as Sources, File, FileFormat, Value};

use super::{ConfigError, environment::Environment};

/// The reference of every key.
const DEFAULTS: &str = include_str!("defaults.toml");

pub(super) fn defaults() -> Result<Value, ConfigError> {
    Ok(Sources::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build()?.cache)
}

/// A file's text, and its name for errors.
pub(super) struct Text {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Text {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }
}

/// The defaults, what the file says instead, and what the environment says instead of both.
pub(super) fn merge(file: Option<&Text>, environment: Environment) -> Result<Value, ConfigError> {
    let mut sources = Sources::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(file) = file {
        // By itself first, so that an error is known to be the file's.
        sources = sources.add_source(of(file)?);
    }
    Ok(sources.add_source(environment).build()?.cache)
}

/// What the file says.
pub(super) fn alone(file: &Text) -> Result<Value, ConfigError> {
    Ok(of(file)?.cache)
}

fn of(file: &Text) -> Result<Sources, ConfigError> {
    let sources = Sources::builder().add_source(File::from_str(&file.text, FileFormat::Toml));
    sources.build().map_err(|error| syntax(file, error))
}

fn syntax(file: &Text, error: config::ConfigError) -> ConfigError {
    let config::ConfigError::FileParse { cause, .. } = &error else {
        return error.into();
    };
    let problem = match cause.downcast_ref::<toml::de::Error>() {
        Some(error) => match error.span() {
            Some(span) => format!("{} at {}", error.message(), position(&file.text, span.start)),
            None => error.message().to_owned(),
        },
        None => cause.to_string(),
    };
    ConfigError::Syntax { path: file.path.clone(), problem }
}

fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reading;

    #[test]
    fn a_syntax_error_says_where_and_shows_no_line() {
        let error = reading::read_text("[clients]\n[[grpc.api_keys]]\nkey = \"s3cret\n", []).err().unwrap();
        let text = error.to_string();
        assert!(text.starts_with("test.toml is not TOML: ") && text.contains("at line 3, column "), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Text::read(Path::new("/nowhere/bugle.toml")).err().unwrap();
        assert_eq!(error.to_string(), "cannot read the configuration file /nowhere/bugle.toml");
    }
}
