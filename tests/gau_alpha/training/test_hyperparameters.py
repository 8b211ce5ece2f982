"""Hyperparameters as loggers get them."""

from lightning.pytorch.loggers import Logger

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.position import YaRN
from gau_alpha.scaling import InfoScale, Product, ScalableSoftmax, YaRNTemperature
from gau_alpha.training.hparams import flatten_hparams, log_hyperparameters, numbers_of_strategies
from gau_alpha.visibility import Window


def test_classes_become_names_and_their_arguments_numbers():
    method = AttentionMethod(scaling=InfoScale(minimum=0.5), position=YaRN(factor=4), visibility=Window(radius=8))
    values = flatten_hparams(GAUAlphaModule(GAUAlphaConfig(20, 16, 24, 8, 2), 16, method).hparams)
    assert all(isinstance(value, str | bool | int | float) for value in values.values())
    assert (values["scaling"], values["scaling.minimum"]) == ("InfoScale", 0.5)
    assert (values["position"], values["position.factor"], values["position.beta_fast"]) == ("YaRN", 4, 32)
    assert (values["visibility"], values["visibility.radius"]) == ("Window", 8)
    assert values["train_length"] == 16
    assert "scaling.train_length" not in values
    assert values["optimizer.betas"] == "0.9, 0.98"


def test_what_is_none_is_left_out_and_nested_strategies_are_named():
    product = AttentionMethod(scaling=Product([YaRNTemperature(), ScalableSoftmax(bias=True)]))
    values = flatten_hparams({"method": product.describe(), "absent": None})
    assert values["scaling.scalings"] == "YaRNTemperature, ScalableSoftmax"
    assert "absent" not in values


def test_any_logger_gets_them_flat():
    told = []

    class Telling(Logger):
        name = version = "told"

        def log_metrics(self, metrics, step=None):
            raise AssertionError("nothing was measured")

        def log_hyperparams(self, params, *args, **kwargs):
            told.append(params)

    log_hyperparameters([Telling()], {"method": AttentionMethod().describe(), "train_length": 64}, ["loss"])
    (values,) = told
    assert (values["similarity"], values["train_length"]) == ("DotProduct", 64)


def test_numbers_of_all_strategies_are_known_and_only_numbers():
    names = numbers_of_strategies()
    assert {"similarity.scale", "scaling.minimum", "position.base", "visibility.radius", "visibility.sinks"} <= set(
        names
    )
    assert not {"scaling.lengths", "scaling.temperatures", "scaling.scalings", "position.train_length"} & set(names)
    assert names == sorted(set(names))
