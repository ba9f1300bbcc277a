use super::{Commands, EmitRequest, Error, emit::audit_refusal, sent::Sent};
use crate::auth::Caller;
use crate::message::Receipt;

impl Commands {
    /// Sends several events, in order. One that is refused, here or before, stops no other. Acknowledgements are awaited when
    /// all are sent.
    pub async fn emit_batch(
        &self,
        caller: &Caller,
        requests: Vec<Result<EmitRequest, Error>>,
    ) -> Vec<Result<Receipt, Error>> {
        let asking = requests.iter().flatten().filter(|request| request.emit.ack.is_some()).count();
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            let sent = match request {
                Ok(mut request) => {
                    request.emit.ack = request.emit.ack.map(|ack| ack.one_of(asking).into());
                    let asks = request.emit.ack.is_some();
                    Sent::run(asks, |sent| self.emit_telling(caller, request, sent)).await
                }
                Err(error) => {
                    audit_refusal(&caller.name, None, None, &error);
                    Sent::Answered(Err(error))
                }
            };
            all.push(sent);
        }
        let mut results = Vec::with_capacity(all.len());
        for sent in all {
            results.push(sent.answer().await);
        }
        results
    }
}
