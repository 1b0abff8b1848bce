//! Arguments of a command, taken one by one; what is left over is refused, as QEMU does.

use super::error::QmpError;
use serde_json::{Map, Value};

/// See the module.
#[derive(Debug, Default)]
pub struct Arguments(Map<String, Value>);

type Taken<T> = Result<T, QmpError>;

impl Arguments {
    /// Over the object of a message.
    pub fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// An object within the arguments.
    pub fn object(&mut self, name: &str) -> Taken<Self> {
        match self.0.remove(name) {
            Some(Value::Object(map)) => Ok(Self(map)),
            Some(_) => Err(wrong(name, "object")),
            None => Err(missing(name)),
        }
    }

    /// A string, if it is there.
    pub fn text(&mut self, name: &str) -> Taken<Option<String>> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "string")),
        }
    }

    /// A string that must be there.
    pub fn needs(&mut self, name: &str) -> Taken<String> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    /// A truth value; false where it is not there.
    pub fn flag(&mut self, name: &str) -> Taken<bool> {
        match self.0.remove(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(wrong(name, "boolean")),
        }
    }

    /// A number, if it is there.
    pub fn number(&mut self, name: &str) -> Taken<Option<u64>> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| wrong(name, "integer")),
        }
    }

    /// A list of strings, if it is there.
    pub fn texts(&mut self, name: &str) -> Taken<Option<Vec<String>>> {
        let Some(values) = self.list(name)? else {
            return Ok(None);
        };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong(name, "string")),
        };
        values.into_iter().map(text).collect::<Taken<_>>().map(Some)
    }

    /// A list, if it is there.
    pub fn list(&mut self, name: &str) -> Taken<Option<Vec<Value>>> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(wrong(name, "array")),
        }
    }

    /// Forgets what is there but means nothing here.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.0.remove(*name);
        }
    }

    /// Nothing else may be there.
    pub fn end(self) -> Taken<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(QmpError::new(format!("Parameter '{name}' is unexpected"))),
        }
    }
}

/// A parameter that must be there is not.
pub fn missing(name: &str) -> QmpError {
    QmpError::new(format!("Parameter '{name}' is missing"))
}

fn wrong(name: &str, expected: &str) -> QmpError {
    QmpError::new(format!(
        "Invalid parameter type for '{name}', expected: {expected}"
    ))
}
