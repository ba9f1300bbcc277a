use super::{Commands, EmitRequest, Error, emit::audit_refusal};
use crate::auth::Caller;
use crate::message::Receipt;

impl Commands {
    /// Sends several events, in order. One that is refused, here or before, stops no other.
    pub async fn emit_batch(
        &self,
        caller: &Caller,
        requests: Vec<Result<EmitRequest, Error>>,
    ) -> Vec<Result<Receipt, Error>> {
        let mut results = Vec::with_capacity(requests.len());
        for request in requests {
            let result = match request {
                Ok(request) => self.emit(caller, request).await,
                Err(error) => {
                    audit_refusal(&caller.name, None, None, &error);
                    Err(error)
                }
            };
            results.push(result);
        }
        results
    }
}
