//! One message in, taken apart; answers and events put together.

use super::arguments::Arguments;
use super::error::QmpError;
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A command that a client sent.
#[derive(Debug)]
pub struct Request {
    /// The command.
    pub command: String,
    /// Its arguments.
    pub arguments: Arguments,
    /// Comes back with the answer.
    pub id: Option<Value>,
}

/// A message that is no command: what to answer, and with which id.
#[derive(Debug)]
pub struct Bad {
    /// Comes back with the answer.
    pub id: Option<Value>,
    /// What is wrong.
    pub error: QmpError,
}

/// Takes a message apart.
pub fn parse(message: &[u8]) -> Result<Request, Bad> {
    let fail = |id, desc: String| Bad {
        id,
        error: QmpError::new(desc),
    };
    let value: Value = serde_json::from_slice(message)
        .map_err(|e| fail(None, format!("JSON parse error, {e}")))?;
    let Value::Object(mut map) = value else {
        return Err(fail(None, "QMP input must be a JSON object".to_owned()));
    };
    let id = map.remove("id");
    let fail = |desc: String| fail(id.clone(), desc);
    let command = match map.remove("execute") {
        Some(Value::String(command)) => command,
        Some(_) => return Err(fail("QMP input member 'execute' must be a string".into())),
        None => return Err(fail("QMP input lacks member 'execute'".into())),
    };
    let arguments = match map.remove("arguments") {
        Some(Value::Object(arguments)) => arguments,
        Some(_) => {
            return Err(fail(
                "QMP input member 'arguments' must be an object".into(),
            ));
        }
        None => Map::new(),
    };
    if let Some(name) = map.keys().next() {
        return Err(fail(format!("QMP input member '{name}' is unexpected")));
    }
    Ok(Request {
        command,
        arguments: Arguments::new(arguments),
        id,
    })
}

/// The answer to a command.
pub fn answer(id: Option<Value>, done: Result<Value, QmpError>) -> Vec<u8> {
    let mut answer = match done {
        Ok(value) => json!({ "return": value }),
        Err(error) => json!({ "error": error.to_json() }),
    };
    if let Some(id) = id {
        answer["id"] = id;
    }
    line(&answer)
}

/// An event that happened now.
pub fn event(name: &str, data: &Value) -> Vec<u8> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    line(&json!({
        "event": name,
        "data": data,
        "timestamp": { "seconds": now.as_secs(), "microseconds": now.subsec_micros() },
    }))
}

/// A message as it is sent.
pub fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.extend_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_command_is_answered_as_qemu_does() {
        for (message, desc) in [
            ("[]", "QMP input must be a JSON object"),
            ("{}", "QMP input lacks member 'execute'"),
            (
                r#"{"execute": 1}"#,
                "QMP input member 'execute' must be a string",
            ),
            (
                r#"{"execute": "x", "arguments": []}"#,
                "QMP input member 'arguments' must be an object",
            ),
            (
                r#"{"execute": "x", "extra": 1}"#,
                "QMP input member 'extra' is unexpected",
            ),
        ] {
            assert_eq!(parse(message.as_bytes()).unwrap_err().error.desc(), desc);
        }
        let torn = parse(b"{\"execute\": ").unwrap_err();
        assert!(torn.error.desc().starts_with("JSON parse error"));
        let bad = parse(br#"{"id": [1], "execute": 1}"#).unwrap_err();
        assert_eq!(bad.id, Some(json!([1])));
    }

    #[test]
    fn nesting_that_would_fill_the_stack_is_an_error() {
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn answers_have_their_ids() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let done = text(answer(Some(json!("x")), Ok(json!({}))));
        assert_eq!(done, "{\"id\":\"x\",\"return\":{}}\r\n");
        let failed = text(answer(None, Err(QmpError::new("no"))));
        assert_eq!(
            failed,
            "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\r\n"
        );
    }
}
