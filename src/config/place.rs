use std::fmt;

use config::{Value, ValueKind};
use serde_json::Value as Json;
use serde_path_to_error::{Path, Segment};

/// Where a value is, as in `grpc.api_keys[0].name`.
pub(super) struct Place(Vec<Step>);

enum Step {
    Key(String),
    Entry(usize),
}

impl Place {
    /// Where serde stopped.
    pub(super) fn of_error(path: &Path) -> Self {
        let steps = path.iter().map_while(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Entry(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Self(steps.collect())
    }

    /// What a variable means by these segments of its name: numbers are entries of lists.
    pub(super) fn of_segments<'a>(segments: impl IntoIterator<Item = &'a str>) -> Self {
        let steps = segments.into_iter().map(|segment| match segment.parse::<usize>() {
            Ok(number) if number.to_string() == segment => Step::Entry(number),
            Ok(_) | Err(_) => Step::Key(segment.to_owned()),
        });
        Self(steps.collect())
    }

    /// Goes on to a key inside.
    pub(super) fn enter(&mut self, key: &str) {
        self.0.push(Step::Key(key.to_owned()));
    }

    /// What the example has here. All entries of a list are like its first.
    pub(super) fn in_example<'a>(&self, example: &'a Json) -> Option<&'a Json> {
        self.0.iter().try_fold(example, |value, step| match step {
            Step::Key(key) => value.as_object()?.get(key),
            Step::Entry(_) => value.as_array()?.first(),
        })
    }

    /// The variable that set the value.
    pub(super) fn origin<'a>(&self, merged: &'a Value) -> Option<&'a str> {
        let value = self.0.iter().try_fold(merged, |value, step| match (step, &value.kind) {
            (Step::Key(key), ValueKind::Table(table)) => table.get(key),
            (Step::Entry(index), ValueKind::Array(entries)) => entries.get(*index),
            (Step::Key(_) | Step::Entry(_), _) => None,
        });
        value?.origin()
    }

    /// Puts the example's value here, and tells whether there is one.
    pub(super) fn set(&self, tree: &mut Json, example: &Json) -> bool {
        let (Some(value), Some((last, parents))) = (self.in_example(example), self.0.split_last()) else {
            return false;
        };
        match (last, descend(tree, parents)) {
            (Step::Key(key), Some(Json::Object(table))) => {
                table.insert(key.clone(), value.clone());
                true
            }
            (Step::Entry(index), Some(Json::Array(entries))) => {
                entries.get_mut(*index).map(|entry| *entry = value.clone()).is_some()
            }
            (Step::Key(_) | Step::Entry(_), _) => false,
        }
    }

    /// Takes the key out of the tree, and tells whether it was there.
    pub(super) fn remove(&self, tree: &mut Json) -> bool {
        let Some((Step::Key(key), parents)) = self.0.split_last() else {
            return false;
        };
        descend(tree, parents).and_then(Json::as_object_mut).is_some_and(|table| table.remove(key).is_some())
    }
}

fn descend<'a>(tree: &'a mut Json, steps: &[Step]) -> Option<&'a mut Json> {
    steps.iter().try_fold(tree, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Entry(index) => value.get_mut(index),
    })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Entry(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
